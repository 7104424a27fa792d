"""One organization on a Vault: its credentials, its keys, and who meddles with either."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hvac
import requests

from keystore_harness.ca import Issued
from keystore_harness.http import TrustingAdapter
from keystore_harness.impostor import client_context
from keystore_harness.tenancy import Tenancy, key_name

if TYPE_CHECKING:
    from keystore_harness.vault import Vault

Record = dict[str, Any]


@dataclass(frozen=True)
class Credentials:
    """A client certificate of an organization, for one Vault.

    Attributes:
        issued: Certificate and private key.
        pfx: Both as a PKCS#12 file.
        password: The file's password.

    """

    issued: Issued
    pfx: bytes = field(repr=False)
    password: str | None = field(repr=False)
    _vault: Vault = field(repr=False)
    _tenancy: Tenancy = field(repr=False)

    def login(self) -> hvac.Client:
        """Log in with the certificate the way clients do, by the public port; return a client with that token.

        Raises:
            hvac.exceptions.VaultError: The server refuses the certificate, or is sealed.
            requests.exceptions.RequestException: It cannot be reached.

        """
        context = client_context(self.issued, self._vault.trusted_pem)
        session = requests.Session()
        session.trust_env = False
        session.mount("https://", TrustingAdapter(context))
        url = f"https://{self._vault.login_host}:{self._vault.port}"
        namespace = self._tenancy.namespace or None
        client = hvac.Client(url=url, token="", session=session, timeout=10, allow_redirects=False, namespace=namespace)
        # hvac's own certificate login wants the private key in a file.
        answer = client.write_data("auth/cert/login", data={"name": self._tenancy.role_name})
        client.token = answer["auth"]["client_token"]
        return client


class Tenant:
    """An organization that was set up on a Vault: `vault.admit("acme")`.

    Names of keys are what stands at the end of their paths: `key_name(user, generation)`, or whatever is listed.
    """

    def __init__(self, vault: Vault, tenancy: Tenancy, version: int) -> None:
        self.vault = vault
        self.tenancy = tenancy
        self.version = version

    # Who it is.

    def credentials(
        self,
        password: str | None = None,
        *,
        expired: bool = False,
        not_after: dt.datetime | None = None,
        common_name: str | None = None,
        encryption: Any = None,
    ) -> Credentials:
        """Issue a client certificate.

        Args:
            password: Password of the PKCS#12 file, none by default.
            expired: Make one that ended an hour ago.
            not_after: End of validity, a year from now by default.
            common_name: Another name than the organization's.
            encryption: How to encrypt the file (of `cryptography`), the best common way by default.

        """
        now = dt.datetime.now(dt.UTC)
        begin = now - dt.timedelta(days=30) if expired else None
        end = now - dt.timedelta(hours=1) if expired else not_after
        name = common_name or self.tenancy.organization
        issued = self.vault.ca.issue(name, not_before=begin, not_after=end)
        return Credentials(issued, issued.pkcs12(password, encryption=encryption), password, self.vault, self.tenancy)

    def restore_role(self) -> None:
        """Write policy and certificate role as they should be."""
        parameters = self.tenancy.role_parameters(self.vault.ca.pem, self.tenancy.organization)
        policy = self.tenancy.policy(self.version)
        self.vault.enable_role(self.tenancy.role_name, policy, parameters, self.tenancy.namespace)

    def _client(self) -> hvac.Client:
        """Return an administrator's client of its namespace."""
        return self.vault.client(namespace=self.tenancy.namespace)

    # Its keys, by way of the administrator.

    def _path(self, name: str, kind: str = "data") -> str:
        kind = "" if self.version == 1 else f"{kind}/"
        return f"{self.tenancy.mount}/{kind}{self.tenancy.organization}/{name}"

    def names(self) -> list[str]:
        """Return the names of all stored keys."""
        found = self._client().list(self._path("", "metadata"))
        # A name that ends with a slash is a folder: what the product remembers of its decisions, say.
        return [name for name in found["data"]["keys"] if not name.endswith("/")] if found else []

    def record(self, name: str) -> Record | None:
        """Return what is stored under a name."""
        return self._read(self._client(), name)

    def _read(self, client: hvac.Client, name: str) -> Record | None:
        found = client.read(self._path(name))
        if found is None:
            return None
        record: Record = found["data"] if self.version == 1 else found["data"]["data"]
        return record

    def stored(self) -> dict[str, bytes]:
        """Return every stored key by its name."""
        client = self._client()
        records = ((name, self._read(client, name)) for name in self.names())
        return {name: b64decode(record["archive_key"]) for name, record in records if record}

    def put(self, name: str, record: Record) -> None:
        """Store something under a name, whatever was there."""
        body: dict[str, Any] = dict(record) if self.version == 1 else {"data": dict(record)}
        self._client().write_data(self._path(name), data=body)

    def remove(self, name: str) -> None:
        """Remove what is stored under a name, with all its versions."""
        self._client().delete(self._path(name, "metadata"))

    def add(self, user: str, key: bytes | None = None) -> str:
        """Store a key for a user as the product would; return its name."""
        name = key_name(user, 1)
        key = key or secrets.token_bytes(32)
        record = {"format": "1", "organization": self.tenancy.organization, "user": user, "generation": 1}
        self.put(name, {**record, "archive_key": b64encode(key).decode(), "origin": "harness"})
        return name

    # Somebody meddles with them. Everything is as it was at the end of the block.

    @contextlib.contextmanager
    def _meddled(self, what: str, *names: str) -> Iterator[dict[str, Record]]:
        before = {name: self.record(name) for name in names}
        present = {name: record for name, record in before.items() if record is not None}
        with self.vault.timeline.fault(self.vault.name, what):
            try:
                yield present
            finally:
                for name, record in before.items():
                    if record is None:
                        self.remove(name)
                    elif self.record(name) != record:
                        self.put(name, record)

    @contextlib.contextmanager
    def flipped_bit(self, name: str) -> Iterator[None]:
        """Change one bit of a stored key."""
        with self._meddled("a bit of a key flipped", name) as found:
            key = b64decode(found[name]["archive_key"])
            flipped = bytes([key[0] ^ 1]) + key[1:]
            self.put(name, {**found[name], "archive_key": b64encode(flipped).decode()})
            yield

    @contextlib.contextmanager
    def swapped(self, first: str, second: str) -> Iterator[None]:
        """Put the keys of two users in each other's place."""
        with self._meddled("two keys swapped", first, second) as found:
            self.put(first, found[second])
            self.put(second, found[first])
            yield

    @contextlib.contextmanager
    def deleted(self, name: str) -> Iterator[None]:
        """Delete a stored key."""
        with self._meddled("a key deleted", name):
            self.remove(name)
            yield

    @contextlib.contextmanager
    def added(self, user: str = "nobody@example.com") -> Iterator[str]:
        """Store a key nobody asked for."""
        name = key_name(user, 1)
        with self._meddled("a key added", name):
            self.add(user)
            yield name

    # Somebody takes its rights away.

    @contextlib.contextmanager
    def _restored_after(self, what: str) -> Iterator[hvac.Client]:
        """Lend the administrator's client for a fault of policy or role; both are written anew at the end."""
        with self.vault.timeline.fault(self.vault.name, what):
            try:
                yield self._client()
            finally:
                self.restore_role()

    @contextlib.contextmanager
    def role_removed(self) -> Iterator[None]:
        """Delete the certificate role, and end every token it gave; written anew at the end."""
        with self._restored_after(f"role of {self.tenancy.organization} removed") as client:
            client.delete(f"auth/cert/certs/{self.tenancy.role_name}")
            client.sys.revoke_prefix("auth/cert/login")
            yield

    @contextlib.contextmanager
    def access_removed(self) -> Iterator[None]:
        """Let the certificate log in and do nothing (its policy grants nothing); written anew at the end."""
        nothing = 'path "nothing/" { capabilities = ["read"] }'
        with self._restored_after(f"access of {self.tenancy.organization} removed") as client:
            client.sys.create_or_update_policy(self.tenancy.role_name, nothing)
            yield

    @contextlib.contextmanager
    def may_not_delete(self) -> Iterator[None]:
        """Take the right to delete out of its policy: what has to be removed stays; written anew at the end."""
        policy = self.tenancy.policy(self.version).replace(', "delete"', "")
        with self._restored_after(f"{self.tenancy.organization} may not delete") as client:
            client.sys.create_or_update_policy(self.tenancy.role_name, policy)
            yield

    @contextlib.contextmanager
    def role_changed(self, **parameters: Any) -> Iterator[None]:
        """Change its certificate role (`token_type="batch"`, say, `token_ttl=5`); written anew at the end."""
        with self._restored_after(f"role of {self.tenancy.organization} changed") as client:
            client.write_data(f"auth/cert/certs/{self.tenancy.role_name}", data=parameters)
            yield

    @contextlib.contextmanager
    def deleting_after(self, time: str) -> Iterator[None]:
        """Let its mount, of KV version 2, delete what is written from now on after a time, such as "40s"."""
        path = f"{self.tenancy.mount}/config"
        with self.vault.timeline.fault(self.vault.name, f"{self.tenancy.mount} deletes after {time}"):
            self._client().write_data(path, data={"delete_version_after": time})
            try:
                yield
            finally:
                self._client().write_data(path, data={"delete_version_after": "0s"})

    @contextlib.contextmanager
    def certificate_revoked(self, credentials: Credentials) -> Iterator[None]:
        """Put a client certificate on a revocation list, and end the tokens it got; taken off at the end."""
        serial = credentials.issued.certificate.serial_number
        path = f"auth/cert/crls/harness-{serial:x}"
        with self.vault.timeline.fault(self.vault.name, "client certificate revoked"):
            client = self._client()
            client.write_data(path, data={"crl": self.vault.ca.revocation_list(serial)})
            client.sys.revoke_prefix("auth/cert/login")
            try:
                yield
            finally:
                self._client().delete(path)
