"""Real servers for the tests: two Vault-compatible ones, a mailbox, the service with its PostgreSQL, the engine."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from keystore_harness import CertificateAuthority, Tenancy, Testbed, Toxiproxy, program, wait_until
from keystore_harness.binary import obtain_toxiproxy

from pulumi_keystore import key_release
from pulumi_keystore.client import Client
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.declarations.tenancy import key_name
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault.requests import Endpoint, Flow, Request
from pulumi_keystore.vault.resolver import HostMap, Resolver
from pulumi_keystore.vault.transport import Transport

ROOT = Path(__file__).resolve().parent.parent
WHOLE = os.environ.get("TORTURE_WHOLE") == "1"
"""Whether everything is tried (`make torture`), or what shows something in a few minutes (`make test`)."""
QUICK = os.environ.get("QUICK") == "1"
"""Whether only a taste of what is generated is tried (`make quick`)."""
if os.environ.get("FORKED", "1") == "1":
    # Hundreds of services are started, and their imports are a third of what it all costs.
    program.fork_from_now_on()
hypothesis.settings.register_profile("full", deadline=None)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=15)
hypothesis.settings.load_profile("quick" if QUICK else "full")


def effort(quick: int, full: int, whole: int) -> int:
    """Return how much of something is tried now."""
    return whole if WHOLE else quick if QUICK else full


PASSWORD = "CANARY-pfx-password"
# The root token needs no client certificate, but the transport wants one.
_ISSUED = CertificateAuthority().issue("anybody")
ANYBODY = ClientCertificate.from_pem(_ISSUED.certificate_pem.encode(), _ISSUED.key_pem.encode())
# Short patience: an outage test shall not wait for half a minute.
SETTINGS = {"retry_s": "2", "cleanup_retry_s": "1", "shard_size": "100"}


@pytest.fixture(scope="session")
def testbed() -> Iterator[Testbed]:
    with Testbed("ab", SETTINGS) as testbed:
        yield testbed


@pytest.fixture(scope="session")
def toxiproxy() -> Iterator[Toxiproxy]:
    with Toxiproxy(obtain_toxiproxy()) as server:
        yield server


@pytest.fixture(scope="session")
def admin_token(testbed: Testbed) -> str:
    return testbed.service.make_token("ops", "provider-admin")


@pytest.fixture(scope="session")
def admin(testbed: Testbed, admin_token: str) -> Iterator[Client]:
    with Client(testbed.service.url, admin_token) as client:
        yield client


@pytest.fixture(scope="session")
def escrow_client(testbed: Testbed) -> Iterator[Client]:
    with Client(testbed.service.url, testbed.service.make_token("authority", "authority")) as client:
        yield client


def pytest_report_header() -> str | None:
    """Say which engine and language host are used, where that is settled."""
    if "PULUMI_ENGINE" not in os.environ:
        return None
    folder = Path(os.environ["PULUMI_ENGINE"])
    host = "ours, of engine/language" if (folder / "host.sha256").exists() else "Pulumi's own"
    version = subprocess.run([folder / "pulumi", "version"], capture_output=True, text=True, timeout=60, check=False)
    return f"pulumi: {version.stdout.strip()}; language host: {host}"


@pytest.fixture(scope="session")
def engine() -> Path:
    """The folder of the Pulumi engine."""
    known = os.environ.get("PULUMI_ENGINE")
    if known:
        return Path(known)
    script = [sys.executable, str(ROOT / "engine" / "obtain.py")]
    return Path(subprocess.run(script, check=True, capture_output=True, text=True, timeout=1800).stdout.strip())


@pytest.fixture(scope="session")
def policy_pack() -> Path:
    """The folder of the policy pack, with the virtual environment of its own, from its lock file."""
    command = [os.environ.get("UV", "uv"), "sync", "--frozen", "--quiet", "--system-certs"]
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(command, cwd=ROOT / "policies", check=True, timeout=600, env=clean)
    return ROOT / "policies"


@dataclass
class Customer:
    """One organization with keystores `first` (on server a) and `second` (on server b), and its users' keys."""

    name: str
    testbed: Testbed
    admin: Client
    escrow_client: Client
    keys: dict[str, bytes] = field(default_factory=dict, repr=False)
    letters: dict[str, str] = field(default_factory=lambda: {"first": "a", "second": "b"})
    versions: dict[str, int] = field(default_factory=lambda: {"first": 1, "second": 1})

    def tenancy(self, keystore: str) -> Tenancy:
        return Tenancy(self.name, "archive-keys" if self.versions[keystore] == 1 else "archive-keys-v2")

    def admit(self, keystore: str) -> None:
        self.testbed.admit(self.letters[keystore], self.tenancy(keystore), self.versions[keystore])

    def declaration(self, keystore: str, **changes: Any) -> dict[str, Any]:
        mount = self.tenancy(keystore).mount
        return self.testbed.declaration(self.letters[keystore], self.name, PASSWORD, **{"mount": mount, **changes})

    def register(self, keystore: str, **changes: Any) -> dict[str, Any]:
        return self.admin.put_keystore(self.name, keystore, self.declaration(keystore, **changes))

    def enrol(self, count: int) -> None:
        new = {f"user-{len(self.keys) + n}@{self.name}": secrets.token_bytes(32) for n in range(count)}
        users = list(new)
        for start in range(0, count, 1000):
            body = {user: b64encode(new[user]).decode() for user in users[start : start + 1000]}
            self.escrow_client.request("POST", "organizations", self.name, "archive-keys", body={"keys": body})
        self.keys |= new

    def released(self, user: str) -> bytes:
        key = X25519PrivateKey.generate()
        public = b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
        path = ("organizations", self.name, "archive-keys", "release")
        answer = self.escrow_client.request("POST", *path, body={"user": user, "public_key": public})
        return key_release.open_sealed(b64decode(answer["sealed_key"]), key, self.name, user)

    @property
    def active(self) -> str:
        return str(self.admin.organization(self.name)["active_keystore"])

    def stored(self, keystore: str) -> dict[str, bytes]:
        """Everything in the organization's path on a server but checkpoints, read with its root token."""
        server, version = self.testbed.vaults[self.letters[keystore]], self.versions[keystore]
        mount, ca = self.tenancy(keystore).mount, self.testbed.ca.pem.encode()
        data, listing = ("", "") if version == 1 else ("data/", "metadata/")
        found = server.client().list(f"{mount}/{listing}{self.name}")
        names = [name for name in found["data"]["keys"] if not name.endswith("/")] if found else []
        endpoint = Endpoint(KeystoreAddress.parse(server.address), ANYBODY, ca, Resolver(HostMap(server.host_map)))

        def read(name: str) -> Flow[tuple[str, bytes] | None]:
            path = f"/v1/{mount}/{data}{self.name}/{name}"
            response = yield Request(endpoint, "GET", path, token=server.root_token)
            if response.status == 404:
                return None  # removed since it was listed
            body = response.json()["data"]
            return name, b64decode((body if version == 1 else body["data"])["archive_key"])

        with Transport() as transport:
            return dict(found for found in transport.run(map(read, names), 32) if found)

    def assert_complete(self, keystore: str, *, empty: str | None = None) -> None:
        """`keystore` is active and holds exactly the enrolled keys; `empty` holds nothing of ours."""
        assert self.active == keystore
        assert self.stored(keystore) == {key_name(user, 1): key for user, key in self.keys.items()}
        for user in list(self.keys)[:3]:
            assert self.released(user) == self.keys[user]
        if empty is not None:
            assert self.stored(empty) == {}

    def migrate(self, destination: str, email: str | None = None) -> dict[str, Any]:
        """Start a migration and wait for its end."""
        return self.finish(self.admin.start_migration(self.name, destination, email))

    def finish(self, row: dict[str, Any], timeout_s: float = 240) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            try:
                current = self.admin.migration(self.name, row["id"])
            except KeystoreError:
                return None
            return current if current["phase"] == "ended" else None

        return wait_until(ended, "the migration to end", timeout_s) or {}

    def start_and_wait_for(self, destination: str, done: int, email: str | None = None) -> dict[str, Any]:
        """Start a migration; return when at least `done` keys have moved and it still runs."""
        row = self.admin.start_migration(self.name, destination, email)
        deadline = time.monotonic() + 60
        while row["done"] < done:
            assert row["state"] == "running", row
            assert time.monotonic() < deadline
            time.sleep(0.01)
            row = self.admin.migration(self.name, row["id"])
        assert row["done"] < row["total"], "it was over before the fault came: give it more keys"
        return row

    def history(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.admin.request("GET", "organizations", self.name, "history")
        return rows

    @property
    def actions(self) -> list[str]:
        return [row["action"] for row in self.history()]


def retire(testbed: Testbed, organizations: Collection[str]) -> None:
    """Have the keystores of these organizations tested no more.

    Each is otherwise tested every minute, or second, until the last test has ended: hundreds of them leave no time for
    anything else. There is no request for it: a keystore that holds keys cannot be removed.
    """
    with suppress(psycopg.OperationalError):  # A test may have ended the service, and with it the database.
        given = testbed.service.database_url.replace("postgresql+psycopg:", "postgresql:")
        with psycopg.connect(given, connect_timeout=5) as connection:
            theirs = "organization_id IN (SELECT id FROM organizations WHERE name = ANY(%s))"
            connection.execute("SET lock_timeout = '5s'")
            connection.execute(
                f"UPDATE keystores SET kind = 'provider' WHERE kind = 'self-administered' AND {theirs}",
                [list(organizations)],
            )
            nobodys = "keystore_id IN (SELECT id FROM keystores WHERE kind <> 'self-administered')"
            connection.execute(f"DELETE FROM keystore_health WHERE {nobodys}")


@pytest.fixture
def customer(testbed: Testbed, admin: Client, escrow_client: Client) -> Iterator[Callable[..., Customer]]:
    """Return a maker of organizations, each with its own place on both servers."""
    names = []

    def make(
        keys: int = 0,
        *,
        name: str = "",
        keystores: tuple[str, ...] = ("first", "second"),
        versions: tuple[int, int] = (1, 1),
    ) -> Customer:
        made = Customer(name or f"org-{secrets.token_hex(4)}", testbed, admin, escrow_client)
        names.append(made.name)
        made.versions = dict(zip(("first", "second"), versions, strict=True))
        admin.put_organization(made.name)
        for keystore in ("first", "second"):
            made.admit(keystore)
        for keystore in keystores:
            made.register(keystore)
        if keys:
            made.enrol(keys)
        return made

    yield make
    retire(testbed, names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the service had to say of a test that failed."""
    report = yield
    service = getattr(getattr(item, "funcargs", {}).get("testbed"), "service", None)
    if report.failed and service is not None and service.log.exists():
        lines = service.log.read_text(errors="replace").splitlines()
        said = [line for line in lines if '"event": "request"' not in line]
        report.sections.append(("end of the service's log", "\n".join(said[-30:])))
    return report
