"""An organization with users and keys, as the service and its two keystores know it."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from base64 import b64encode
from typing import Any

from keystore_harness.errors import HarnessError
from keystore_harness.ports import wait_until
from keystore_harness.tenancy import key_name
from keystore_harness.testbed import Testbed

_BATCH = 1000


class Customer:
    """An organization whose keystore `first` lies on one Vault and `second` on another, with keys in the first.

    Args:
        testbed: Vaults and service.
        keys: How many users there are.
        source: Letter of the first Vault.
        destination: Letter of the second.

    """

    def __init__(self, testbed: Testbed, keys: int, source: str = "a", destination: str = "b") -> None:
        self.testbed = testbed
        self.name = f"org-{secrets.token_hex(4)}"
        self.keys: dict[str, bytes] = {}
        self.places = {"first": testbed.admit(source, self.name), "second": testbed.admit(destination, self.name)}
        self.declare()
        self._enrol(keys)

    def declare(self) -> None:
        """Make tokens, and declare the organization and its keystores: to a service that knows nothing of them."""
        self._admin = self.testbed.service.make_token("harness", "provider-admin")
        self._escrow_token = self.testbed.service.make_token("harness", "authority")
        self.call("PUT", "")
        for keystore in self.places:
            self.register(keystore)

    def register(self, keystore: str) -> None:
        """Declare one keystore.

        Raises:
            HarnessError: The service refuses it.

        """
        self.call("PUT", f"keystores/{keystore}", self.declaration(keystore))

    def declaration(self, keystore: str) -> dict[str, Any]:
        """Return the declaration of a keystore with a newly issued client certificate."""
        place = self.places[keystore]
        letter = next(letter for letter, vault in self.testbed.vaults.items() if vault is place.vault)
        where = {"mount": place.tenancy.mount, "role": place.tenancy.role_name}
        return self.testbed.declaration(letter, self.name, secrets.token_urlsafe(12), **where)

    def call(self, method: str, path: str, body: Any = None, *, token: str = "") -> Any:
        """Call the service's API below this organization.

        Raises:
            HarnessError: It refuses; the message is what it says.

        """
        request = urllib.request.Request(  # noqa: S310 - our own service
            f"{self.testbed.service.url}/v1/organizations/{self.name}{'/' if path else ''}{path}",
            data=None if body is None and method != "PUT" else json.dumps(body or {}).encode(),
            method=method,
            headers={"Authorization": f"Bearer {token or self._admin}", "Content-Type": "application/json"},
        )
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=120) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            problem = json.loads(error.read())
            said = problem.get("detail") or problem.get("title")
            raise HarnessError(f"the service says {error.code}: {said}") from None

    def enrol(self, body: dict[str, Any]) -> None:
        """Enrol users, as the authority does.

        Raises:
            HarnessError: The service refuses.

        """
        self.call("POST", "archive-keys", body, token=self._escrow_token)

    def _enrol(self, count: int) -> None:
        self.keys = {f"user-{number}@{self.name}": secrets.token_bytes(32) for number in range(count)}
        users = list(self.keys)
        for start in range(0, count, _BATCH):
            batch = {user: b64encode(self.keys[user]).decode() for user in users[start : start + _BATCH]}
            self.enrol({"keys": batch})

    @property
    def active(self) -> str:
        """Name of the active keystore."""
        return str(self.call("GET", "")["active_keystore"])

    @property
    def actions(self) -> list[str]:
        """What history says, oldest first."""
        return [row["action"] for row in self.call("GET", "history")]

    def start_migration(self, destination: str = "second") -> dict[str, Any]:
        """Start a migration; return its row."""
        row: dict[str, Any] = self.call("POST", "migrations", {"destination": destination, "notify_email": None})
        return row

    def migration(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a migration's row as it is now."""
        now: dict[str, Any] = self.call("GET", f"migrations/{row['id']}")
        return now

    def wait_for_share(self, row: dict[str, Any], share: float) -> None:
        """Return when at least that share of the keys has moved and the migration still runs."""

        def moved() -> bool:
            now = self.migration(row)
            if now["state"] != "running":
                raise HarnessError("the migration was over before the fault came; give it more keys (--keys)")
            return bool(now["done"] >= share * len(self.keys))

        wait_until(moved, f"{share:.0%} of the keys to move", 120, 0.01)

    def ended(self, row: dict[str, Any], timeout_s: float = 180) -> dict[str, Any]:
        """Wait for a migration's end; return its row."""

        def ended() -> dict[str, Any] | None:
            now = self.migration(row)
            return now if now["phase"] == "ended" else None

        return wait_until(ended, "the migration to end", timeout_s, 0.1)

    def wait_for_clean_up(self, row: dict[str, Any]) -> None:
        """Wait until nothing of a migration is left to be removed."""
        wait_until(lambda: self.migration(row)["clean_up_pending"] == [], "the clean-up", 120, 0.2)

    def check(self, keystore: str) -> None:
        """Read both Vaults with their administrators' tokens: one is active and holds every key, the other none.

        Raises:
            AssertionError: It is not so; the message says what is lost or left.

        """
        other = next(name for name in self.places if name != keystore)
        assert self.active == keystore, f"expected {keystore} to be active, found {self.active}"  # noqa: S101
        wanted = {key_name(user, 1): key for user, key in self.keys.items()}
        found = self.places[keystore].stored()
        lost = [name for name, key in wanted.items() if found.get(name) != key]
        assert not lost, f"{len(lost)} of {len(wanted)} keys are lost or changed in {keystore}"  # noqa: S101
        assert len(found) == len(wanted), f"{len(found) - len(wanted)} keys too many in {keystore}"  # noqa: S101
        left = self.places[other].names()
        assert not left, f"{len(left)} keys are left in {other}"  # noqa: S101
