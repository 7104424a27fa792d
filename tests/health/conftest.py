"""A service whose minute is a second: what takes five minutes elsewhere takes five seconds here, and all else is real."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from keystore_harness import Testbed, Toxiproxy, wait_until

from pulumi_keystore.client import Client
from tests.conftest import SETTINGS, Customer

MINUTE_S = 1.0
FAILED, RESUMED = "Error: Keystore connection failure", "Success: Keystore connection resumed"


@dataclass
class Watch:
    """A customer on server a, and the mails that its administrators get."""

    customer: Customer
    recipients: list[str] = field(default_factory=list)

    @property
    def testbed(self) -> Testbed:
        return self.customer.testbed

    def health(self, keystore: str = "first") -> dict[str, Any]:
        return self.customer.admin.health(self.customer.name, keystore)

    def await_status(self, status: str, reason: str | None = None, timeout_s: float = 15) -> dict[str, Any]:
        def shown() -> dict[str, Any] | None:
            found = self.health()
            return found if (found["status"], found["reason"]) == (status, reason) else None

        try:
            return wait_until(shown, f"{status} / {reason}", timeout_s) or {}
        except TimeoutError:
            raise AssertionError(self.health()) from None

    def await_detail(self, says: str) -> dict[str, Any]:
        """Wait for a health check that says something."""
        return wait_until(lambda: says in (self.health()["detail"] or "") and self.health(), says, 60) or {}

    def mails(self) -> list[str]:
        """The subjects of this customer's mails, in order, each mail once by its Message-ID."""
        found = {}
        for message in self.testbed.mailbox.messages:
            if f"Organization: {self.customer.name}" in message.get_content():
                found[message["Message-ID"]] = str(message["Subject"])
        return list(found.values())

    def await_mails(self, *subjects: str, timeout_s: float = 30) -> None:
        wanted = [subject for subject in subjects for _ in self.recipients]
        try:
            wait_until(lambda: self.mails() == wanted, f"the mails {subjects}", timeout_s)
        except TimeoutError:
            raise AssertionError((self.mails(), self.health())) from None


@pytest.fixture(scope="package")
def testbed(toxiproxy: Toxiproxy) -> Iterator[Testbed]:
    settings = {**SETTINGS, "health_check_interval_s": str(MINUTE_S), "health_check_s": "2"}
    with Testbed("ab", settings, network=toxiproxy) as testbed:
        yield testbed


@pytest.fixture(scope="package")
def admin_token(testbed: Testbed) -> str:
    return testbed.service.make_token("ops", "provider-admin")


@pytest.fixture(scope="package")
def admin(testbed: Testbed, admin_token: str) -> Iterator[Client]:
    with Client(testbed.service.url, admin_token) as client:
        yield client


@pytest.fixture(scope="package")
def escrow_client(testbed: Testbed) -> Iterator[Client]:
    with Client(testbed.service.url, testbed.service.make_token("authority", "authority")) as client:
        yield client


@pytest.fixture
def watch(customer: Callable[..., Customer]) -> Iterator[Callable[..., Watch]]:
    """Return a maker of monitored customers, whose keystore is online."""
    made: list[Watch] = []

    def make(recipients: int = 1, *, keys: int = 0, keystores: tuple[str, ...] = ("first",), **more: Any) -> Watch:
        acme = customer(keys, keystores=keystores)
        watched = Watch(acme, [f"admin{n}-{secrets.token_hex(3)}@example.com" for n in range(recipients)])
        acme.admin.put_monitor(acme.name, "first", {"recipients": watched.recipients, **more})
        watched.await_status("Online")
        made.append(watched)
        return watched

    yield make
    for watched in made:
        if watched.testbed.service._process is not None:
            watched.customer.admin.delete_monitor(watched.customer.name, "first")
