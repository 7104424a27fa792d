"""A Vault that is running already: only what leaves it as it was can be done to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

import hvac
import requests

from keystore_harness.ca import CertificateAuthority
from keystore_harness.errors import HarnessError, Unsupported
from keystore_harness.network import Toxiproxy
from keystore_harness.ports import wait_until
from keystore_harness.tenancy import Tenancy
from keystore_harness.tenant import Tenant
from keystore_harness.timeline import Timeline
from keystore_harness.vault import THRESHOLD, Vault


class ExistingServer(Vault):
    """A server on 127.0.0.1 (or a published port there) that somebody else started. Use it as a context manager.

    Organizations admitted to it are removed at the end, and certificate login if it was not there before.

    Args:
        url: https://HOST:PORT of the server; HOST must lead to this machine.
        token: A token with administrator's rights.
        ca_pem: The CA of the server's certificate, in PEM.
        shares: Unseal shares; without them it is not sealed by anybody here.
        network: A Toxiproxy to put between it and its clients.
        timeline: Where its faults are recorded, one of its own by default.

    Raises:
        HarnessError: The address is not one.

    """

    def __init__(
        self,
        url: str,
        token: str,
        ca_pem: str,
        *,
        shares: Iterable[str] = (),
        network: Toxiproxy | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or not parts.port or parts.path.strip("/"):
            raise HarnessError(f"{url!r} is not the address of a server; expected https://HOST:PORT")
        self.url = f"https://{parts.hostname}:{parts.port}"
        self.name = parts.hostname
        self.server_ca = ca_pem
        # Client certificates are of a CA of ours; the server's own CA signs nothing here.
        self.ca = CertificateAuthority()
        self.timeline = timeline or Timeline()
        self.root_token = token
        self.shares = list(shares)
        self._toxiproxy = network
        self._proxy = None
        self._backend = parts.port
        self.port = parts.port
        self._undo = contextlib.ExitStack()

    @property
    def storage_url(self) -> str:
        """Where the administrator's requests go."""
        return self.url

    @property
    def login_host(self) -> str:
        """The name under which it can be reached from here, and which its certificate holds."""
        return self.name

    @property
    def trusted_pem(self) -> str:
        """The CA of the server's certificate."""
        return self.server_ca

    @property
    def version(self) -> tuple[str, str]:
        """Product and version, as far as the server tells them."""
        status = self.client(token="").sys.read_seal_status()
        product = "OpenBao" if "openbao" in str(status).lower() else "Vault"
        return product, str(status["version"])

    def __enter__(self) -> ExistingServer:
        try:
            self.client(timeout_s=5).auth.token.lookup_self()
        except hvac.exceptions.VaultError as error:
            raise HarnessError(f"{self.url} refuses the token: {str(error).splitlines()[0]}") from None
        except requests.exceptions.RequestException as error:
            raise HarnessError(
                f"{self.url} cannot be reached ({type(error).__name__}); is it up? is the CA its?"
            ) from None
        if self._toxiproxy is not None:
            self._proxy = self._toxiproxy.proxy(self.name, self._backend, timeline=self.timeline)
            self._undo.callback(self._proxy.close)
            self.port = self._proxy.port
        if "cert/" not in self.client().sys.list_auth_methods()["data"]:
            self.client().sys.enable_auth_method("cert")
            self._undo.callback(lambda: self.client().sys.disable_auth_method("cert"))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def admit(self, organization: str | Tenancy, *, version: int = 1) -> Tenant:
        """Set one organization up; mount, policy and role are removed at the end.

        Raises:
            HarnessError: Its mount or role is there already, and so not ours.

        """
        tenancy = Tenancy(organization) if isinstance(organization, str) else organization
        if tenancy.namespace:
            raise Unsupported("namespaces are not made on a server that somebody else runs")
        client = self.client()
        if client.read(f"auth/cert/certs/{tenancy.role_name}") is not None:
            raise HarnessError(f"{self.url} has a role {tenancy.role_name!r} already; choose another organization")
        mounted = f"{tenancy.mount}/" in client.sys.list_mounted_secrets_engines()["data"]
        if not mounted:
            self._undo.callback(lambda: self.client().sys.disable_secrets_engine(tenancy.mount))
        tenant = super().admit(tenancy, version=version)

        def remove() -> None:
            for name in tenant.names():
                tenant.remove(name)
            self.client().delete(f"auth/cert/certs/{tenancy.role_name}")
            self.client().sys.delete_policy(tenancy.role_name)

        self._undo.callback(remove)
        return tenant

    @contextlib.contextmanager
    def sealed_for_a_while(self) -> Iterator[None]:
        """Seal; unseal at the end whatever happens.

        Raises:
            Unsupported: There are no unseal shares to open it with again.

        """
        if len(set(self.shares)) < THRESHOLD:
            self._not_here()
        with self.timeline.fault(self.name, "sealed"):
            self.client().sys.seal()
            wait_until(lambda: self.sealed, f"{self.name} to be sealed")
            try:
                yield
            finally:
                for share in self.shares:
                    if self.sealed:
                        self.client(token="").sys.submit_unseal_key(key=share)
                wait_until(lambda: self.active, f"{self.name} to become active")

    def _not_here(self, *_: Any, **__: Any) -> NoReturn:
        raise Unsupported("not done to a server that somebody else runs; use the process or the container driver")

    kill = start = restart = killed = restarted_sealed = paused = disk_full = _not_here
    seal = unseal = showing = expired_certificate = wrong_name = new_authority = restore = answering = _not_here
