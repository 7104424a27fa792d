"""A Vault, however it runs: its address for clients, its administrator, and what an administrator can do."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import Any

import hvac
import requests

from keystore_harness.ca import CertificateAuthority
from keystore_harness.errors import Unsupported
from keystore_harness.http import client
from keystore_harness.impostor import Impostor
from keystore_harness.network import Proxy
from keystore_harness.ports import wait_until
from keystore_harness.tenancy import Tenancy
from keystore_harness.tenant import Tenant
from keystore_harness.timeline import Timeline

SHARES = 5
THRESHOLD = 3


class Vault:
    """A server or a cluster that clients reach under one public DNS name.

    Attributes:
        name: The DNS name in its certificate.
        port: The port on 127.0.0.1 that clients connect to.
        ca: The CA of its certificate, which it also trusts for client certificates.
        timeline: Where its faults are recorded.

    """

    name: str
    port: int
    ca: CertificateAuthority
    timeline: Timeline
    root_token: str
    shares: list[str]
    _proxy: Proxy | None

    # The address clients use, and where it really leads.

    @property
    def address(self) -> str:
        """The public address, for example https://vault-a.example.com:8200."""
        return f"https://{self.name}:{self.port}"

    @property
    def alias(self) -> str:
        """A second DNS name of the same server."""
        return f"also-{self.name}"

    @property
    def host_map(self) -> dict[str, str]:
        """What an operator has to tell a client so that the public names lead here."""
        return {f"{name}:{self.port}": f"127.0.0.1:{self.port}" for name in (self.name, self.alias)}

    @property
    def login_host(self) -> str:
        """The name under which it can be reached from here, and which its certificate holds."""
        return "127.0.0.1"

    @property
    def version(self) -> tuple[str, str]:
        """Product and version, such as ("OpenBao", "2.7.2")."""
        raise NotImplementedError

    @property
    def storage_url(self) -> str:
        """Where the administrator's requests go: past every fault of network and certificate, to the active node."""
        raise NotImplementedError

    @property
    def trusted_pem(self) -> str:
        """The CA, in PEM, that clients must trust to believe its certificate."""
        return self.ca.pem

    @property
    def network(self) -> Proxy:
        """What can be done to the network between it and its clients.

        Raises:
            Unsupported: It was started without Toxiproxy.

        """
        if self._proxy is None:
            raise Unsupported(f"{self.name} has no Toxiproxy before it; run `keystore-harness obtain toxiproxy` once")
        return self._proxy

    def client(self, *, token: str | None = None, timeout_s: float = 30, namespace: str = "") -> hvac.Client:
        """Return an administrator's client (with the root token, unless one is given; "" is none) of a namespace."""
        token = self.root_token if token is None else token
        return client(self.storage_url, self.trusted_pem, token, timeout_s, namespace)

    def log(self) -> str:
        """Return what the server has logged, if that can be had from here."""
        return ""

    # Readiness.

    @property
    def sealed(self) -> bool:
        """Whether the server says that it is sealed."""
        return bool(self.client().sys.read_seal_status()["sealed"])

    @property
    def active(self) -> bool:
        """Whether it is unsealed and answers as the active node."""
        try:
            status = self.client(timeout_s=5).sys.read_health_status(method="GET")
        except (hvac.exceptions.VaultError, requests.exceptions.RequestException):
            return False
        # A healthy active node answers 200, which hvac returns as parsed JSON; standbys and sealed ones do not.
        return isinstance(status, dict) and not status["standby"] and not status["sealed"]

    # What an administrator sets up.

    def enable_namespace(self, namespace: str) -> None:
        """Make a namespace (`"team"`, `"team/child"`) and those above it, unless it is there."""
        parent, _, name = namespace.rpartition("/")
        if parent:
            self.enable_namespace(parent)
        above = self.client(namespace=parent)
        found = above.list("sys/namespaces")
        if f"{name}/" not in (found["data"]["keys"] if found else ()):
            above.write_data(f"sys/namespaces/{name}", data={})
        inside = self.client(namespace=namespace)
        wait_until(lambda: _has_started(inside), f"namespace {namespace}")

    def enable_mount(self, mount: str, version: int, namespace: str = "") -> None:
        """Mount a KV secrets engine of version 1 or 2, unless it is there."""
        client = self.client(namespace=namespace)
        if f"{mount}/" not in client.sys.list_mounted_secrets_engines()["data"]:
            client.sys.enable_secrets_engine("kv", path=mount, options={"version": str(version)})
        wait_until(lambda: self._mount_ready(mount, version, namespace), f"mount {mount}")

    def _mount_ready(self, mount: str, version: int, namespace: str) -> bool:
        # A fresh version 2 mount answers 400 for a moment while it upgrades itself.
        path = f"{mount}/metadata/" if version == 2 else f"{mount}/"  # noqa: PLR2004
        try:
            self.client(namespace=namespace).list(path)
        except hvac.exceptions.VaultError:
            return False
        return True

    def enable_role(self, role: str, policy: str, parameters: dict[str, Any], namespace: str = "") -> None:
        """Write a policy and a certificate role of the same name."""
        client = self.client(namespace=namespace)
        client.sys.create_or_update_policy(role, policy)
        client.write_data(f"auth/cert/certs/{role}", data=parameters)

    def admit(self, organization: str | Tenancy, *, version: int = 1) -> Tenant:
        """Set one organization up (mount, policy, certificate role), as the product documents it; safe to repeat.

        The namespace that its place is in is made, with certificate login, where it is missing.

        Args:
            organization: Its name, or its place on the server where that is not the usual one.
            version: KV version of a mount that is not there yet.

        """
        tenancy = Tenancy(organization) if isinstance(organization, str) else organization
        if tenancy.namespace:
            self.enable_namespace(tenancy.namespace)
            inside = self.client(namespace=tenancy.namespace)
            if "cert/" not in inside.sys.list_auth_methods()["data"]:
                inside.sys.enable_auth_method("cert")
        self.enable_mount(tenancy.mount, version, tenancy.namespace)
        tenant = Tenant(self, tenancy, version)
        tenant.restore_role()
        return tenant

    # Faults any administrator can cause.

    @contextlib.contextmanager
    def rate_limited(self, requests_per_s: float, path: str = "archive-keys/") -> Iterator[None]:
        """Set a quota: requests over it are answered with 429. Removed at the end.

        Args:
            requests_per_s: What is let through.
            path: The mount it is for.

        """
        quota = f"sys/quotas/rate-limit/harness-{path.strip('/').replace('/', '-')}"
        with self.timeline.fault(self.name, f"at most {requests_per_s:g} requests/s"):
            self.client().write_data(quota, data={"rate": requests_per_s, "path": path})
            try:
                yield
            finally:
                self.client().delete(quota)

    @contextlib.contextmanager
    def answering(self, status: int, body: str = "") -> Iterator[Impostor]:
        """Let something else answer every request with a status such as 429, 500 or 503, under the same certificate.

        Args:
            status: HTTP status.
            body: What it says, a JSON object with `errors` by default.

        Yields:
            The impostor, which counts the requests.

        """
        certificate = self.ca.issue_server(self.name, self.alias, "127.0.0.1")
        with (
            self.timeline.fault(self.name, f"answers {status}"),
            Impostor(certificate, status, body) as impostor,
            self.network.leading_to(impostor.port),
        ):
            yield impostor

    # Snapshots.

    def snapshot(self) -> bytes:
        """Return a snapshot of everything it stores (encrypted by the server's own keys)."""
        return bytes(self.client().sys.take_raft_snapshot().content)

    def restore(self, snapshot: bytes) -> None:
        """Put a snapshot of this server in the place of everything it stores; return when it is active again.

        Raises:
            hvac.exceptions.VaultError: The server refuses it.

        """
        self.timeline.note(self.name, "snapshot restored")
        # The server answers, and a moment later reloads what it keeps in memory; it seals itself if it is too busy to
        # do so in time. What it was given after the snapshot tells whether it has.
        mark = f"harness-{secrets.token_hex(8)}"
        self.client().sys.create_or_update_policy(mark, 'path "nothing/" { capabilities = ["read"] }')
        self.client(timeout_s=120).sys.force_restore_raft_snapshot(snapshot)
        wait_until(lambda: self._has_lost(mark), f"{self.name} to be as it was")
        for _ in range(5):
            wait_until(self._is_open_again, f"{self.name} to be active after the restore")
            time.sleep(0.2)

    def _has_lost(self, policy: str) -> bool:
        if not self._is_open_again():
            return False
        try:
            self.client().sys.read_policy(policy)
        except (hvac.exceptions.InvalidPath, hvac.exceptions.Forbidden):
            return True
        except (hvac.exceptions.VaultError, requests.RequestException):
            pass
        return False

    def _is_open_again(self) -> bool:
        return self.active

    def stores(self, name: str, size: int) -> bool:
        """Whether a request that must be written to the disk succeeds; it goes where only the root token sees it."""
        try:
            self.client(timeout_s=10).write_data(f"cubbyhole/harness/{name}", data={"ballast": "x" * size})
        except (hvac.exceptions.VaultError, requests.exceptions.RequestException):
            return False
        return True

    def forget_stored(self) -> None:
        """Remove what `stores` has written."""
        client = self.client()
        for name in client.list("cubbyhole/harness")["data"]["keys"]:
            client.delete(f"cubbyhole/harness/{name}")


def _has_started(client: hvac.Client) -> bool:
    try:
        client.sys.list_auth_methods()
    except hvac.exceptions.VaultError:
        return False
    return True
