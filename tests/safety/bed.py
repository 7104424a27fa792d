"""Three servers behind lines that can lead elsewhere, a service, and an oracle that reads the servers by itself."""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from keystore_harness import Tenancy, Testbed, wait_until
from keystore_harness.server import VaultServer
from keystore_harness.tenant import Tenant

from pulumi_keystore.client import Client
from pulumi_keystore.errors import KeystoreError
from tests.conftest import PASSWORD, Customer

SETTINGS = {
    "retry_s": "1.5",
    "request_s": "3",
    "cleanup_retry_s": "0.5",
    "shard_size": "100",
    "lease_s": "3",
    "health_check_interval_s": "2",
    "health_check_s": "5",
}
MOUNT = "archive-keys"


class Bed:
    """What every test here stands on."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.customers: list[str] = []
        self.admin_token = testbed.service.make_token("ops", "provider-admin")
        self.admin = Client(testbed.service.url, self.admin_token)
        self.escrow_client = Client(testbed.service.url, testbed.service.make_token("authority", "authority"))

    def close(self) -> None:
        self.admin.close()
        self.escrow_client.close()

    def keystore(self, *arguments: str) -> Any:
        """Run the `keystore` command as an administrator."""
        return self.testbed.service.run(*arguments, token=self.admin_token, check=False)

    def customer(self, keys: int = 0, *, version: int = 1, **places: str) -> Acme:
        """Make an organization with keystores at servers (`first="a"`); the first of them is the active one."""
        name = f"org-{secrets.token_hex(4)}"
        letters = places or {"first": "a", "second": "b"}
        mount = MOUNT if version == 1 else f"kv-{name}"
        acme = Acme(name, self.testbed, self.admin, self.escrow_client, letters=dict(letters), bed=self)
        acme.versions = dict.fromkeys(letters, version)
        acme.mounts = dict.fromkeys(letters, mount)
        self.customers.append(name)
        self.admin.put_organization(name)
        for keystore in letters:
            acme.admit(keystore)
            acme.register(keystore)
        if keys:
            acme.enrol(keys)
        return acme


@dataclass
class Acme(Customer):
    """A customer that remembers every key that was acknowledged, wherever its keystores are."""

    bed: Bed | None = None
    mounts: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)

    def tenancy(self, keystore: str) -> Tenancy:
        return Tenancy(self.name, self.mounts.get(keystore, MOUNT), self.roles.get(keystore, ""))

    def declaration(self, keystore: str, **changes: Any) -> dict[str, Any]:
        return super().declaration(keystore, **{"role": self.tenancy(keystore).role_name, **changes})

    def place(self, letter: str, mount: str = MOUNT, *, server: VaultServer | None = None) -> Tenant:
        """Return what an administrator of a server sees of this organization."""
        version = max(self.versions.values())
        return Tenant(server or self.testbed.servers[letter], Tenancy(self.name, mount), version)

    def settle_elsewhere(self, keystore: str, letter: str, mount: str) -> None:
        """Prepare another place: a mount and a role of its own on a server. Nothing is declared yet."""
        self.letters[keystore], self.mounts[keystore] = letter, mount
        self.roles[keystore] = f"keystore-{self.name}-{mount}-{letter}"
        self.versions.setdefault(keystore, 1)
        self.admit(keystore)

    def other_role(self, letter: str) -> str:
        """Make another role for the usual mount of a server, with every right that a keystore needs."""
        role = f"keystore-{self.name}-x"
        self.testbed.admit(letter, Tenancy(self.name, MOUNT, role), 1)
        return role

    def names(self, keystore: str) -> list[str]:
        return self.place(self.letters[keystore], self.mounts.get(keystore, MOUNT)).names()

    def swap(self, keystore: str, **changes: Any) -> dict[str, Any]:
        return self.admin.swap_keystore(self.name, keystore, self.declaration(keystore, **changes))

    def enrol_keys(self, keys: Mapping[str, bytes]) -> dict[str, Any]:
        """Enrol given keys; what is answered with 200 is acknowledged."""
        body = {"keys": {user: b64encode(key).decode() for user, key in keys.items()}}
        done = dict(self.escrow_client.request("POST", "organizations", self.name, "archive-keys", body=body))
        self.keys |= keys
        return done

    def some(self, number: int, prefix: str = "late") -> dict[str, bytes]:
        return {f"{prefix}-{i}@{self.name}": secrets.token_bytes(32) for i in range(number)}

    def pending(self) -> list[dict[str, Any]]:
        return self.admin.clean_ups(self.name)

    def await_no_clean_up(self, timeout_s: float = 120) -> None:
        wait_until(lambda: not self.pending(), "the clean-ups to end", timeout_s, 0.1)

    def may_not_delete(self, keystore: str) -> AbstractContextManager[None]:
        """Take the right to delete from the role, so that a clean-up stays pending; it is given back at the end."""
        server = self.testbed.servers[self.letters[keystore]]
        return Tenant(server, self.tenancy(keystore), self.versions[keystore]).may_not_delete()

    def migrated(self, destination: str) -> dict[str, Any]:
        row = self.migrate(destination)
        assert row["ending"] == "Migration succeeded", row
        return row

    def everywhere(self) -> dict[str, set[bytes]]:
        """Return by name every key that lies anywhere, read with root tokens past the product."""
        found: dict[str, set[bytes]] = {}
        for letter, server in self.testbed.servers.items():
            for mount in {MOUNT, *self.mounts.values()}:
                place = self.place(letter, mount, server=server)
                if f"{mount}/" not in server.client().sys.list_mounted_secrets_engines()["data"]:
                    continue
                for name, key in place.stored().items():
                    found.setdefault(name, set()).add(key)
        return found

    def assert_all_released(self) -> None:
        """Every acknowledged key is released to its owner, and is the right one; of many some are asked for."""
        users = sorted(self.keys)
        for user in users[:: 1 + len(users) // 100]:
            assert self.released(user) == self.keys[user]

    def remembered(self, letter: str, mount: str = MOUNT) -> dict[str, Any] | None:
        """Return the latest checkpoint at a place, None where there is none."""
        client, folder = self.testbed.servers[letter].client(), f"{mount}/{self.name}/checkpoints"
        found = client.list(folder)
        if not found:
            return None
        latest = client.read(f"{folder}/{max(found['data']['keys'])}")
        return dict(latest["data"]) if latest else None

    def remembers(self, letter: str, keys: int) -> bool:
        """Tell whether a server remembers so many keys."""
        return (self.remembered(letter) or {}).get("keys") == keys

    def refused(self, call: Any, *arguments: Any, **options: Any) -> KeystoreError:
        """Return the error that a call is refused with."""
        try:
            call(*arguments, **options)
        except KeystoreError as error:
            return error
        raise AssertionError("it was accepted")


__all__ = ["MOUNT", "PASSWORD", "SETTINGS", "Acme", "Bed", "b64decode"]
