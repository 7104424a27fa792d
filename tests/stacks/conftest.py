"""Three servers, one of which nothing was prepared on."""

from collections.abc import Iterator

import pytest
from keystore_harness import Landscape

from tests.conftest import SETTINGS


@pytest.fixture(scope="session")
def land() -> Iterator[Landscape]:
    with Landscape("abc", SETTINGS) as made:
        yield made
