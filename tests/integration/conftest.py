"""A stack that declares whatever a test says."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from keystore_harness.engine import PulumiStack

from tests.conftest import ROOT, Customer


@dataclass
class Declared:
    """A stack of the program in tests/integration/declared."""

    stack: PulumiStack
    file: Path

    def declare(self, *resources: Any) -> None:
        """Set what is declared: type, name, inputs and options of each."""
        self.file.write_text(json.dumps(resources))


@pytest.fixture
def declaring(engine: Path, tmp_path: Path) -> Callable[..., Any]:
    """Make such a stack for a service."""

    @contextmanager
    def make(url: str, token: str, name: str = "stack") -> Iterator[Declared]:
        folder = tmp_path / name
        folder.mkdir()
        file = folder / "declared.json"
        environment = {"KEYSTORE_URL": url, "KEYSTORE_TOKEN": token, "DECLARED": str(file)}
        with PulumiStack(engine, ROOT / "tests/integration/declared", folder / "state", environment) as stack:
            yield Declared(stack, file)

    return make


@pytest.fixture
def acme(customer: Callable[..., Customer]) -> Customer:
    """A customer for whom nothing is registered."""
    return customer(keystores=())


@pytest.fixture
def made(acme: Customer, declaring: Callable[..., Any], admin_token: str) -> Iterator[Declared]:
    """A stack for that customer, in which nothing is declared yet."""
    with declaring(acme.testbed.service.url, admin_token) as stack:
        yield stack
