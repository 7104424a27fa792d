"""Everything a migration needs, on one machine: Vault servers, a mailbox, and the service that knows them."""

from __future__ import annotations

import json
import shutil
import tempfile
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from keystore_harness.authority import CertificateAuthority
from keystore_harness.mailbox import Mailbox
from keystore_harness.server import VaultServer
from keystore_harness.service import ServiceProcess


class Tenancy(Protocol):
    """What the product says an organization needs on a server (`pulumi_keystore.keystores.tenancy.Tenancy`)."""

    @property
    def organization(self) -> str:
        """Name of the organization, and common name of its client certificates."""

    @property
    def mount(self) -> str:
        """Path of the KV mount."""

    @property
    def role_name(self) -> str:
        """Name of policy and certificate role."""

    def policy(self, version: int) -> str:
        """Return the policy text."""

    def role_parameters(self, ca_pem: str, common_name: str) -> dict[str, Any]:
        """Return the role's parameters."""


class Landscape:
    """Vault servers `vault-a`, `vault-b`, … of example.com, a mailbox and a service. Use it as a context manager.

    Args:
        vaults: The letters of the servers.
        settings: Further settings of the service.
        folder: Where everything lies; a temporary folder by default.

    """

    def __init__(self, vaults: str = "ab", settings: dict[str, str] | None = None, folder: Path | None = None) -> None:
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="keystore-landscape-"))
        self.authority = CertificateAuthority()
        self.mailbox = Mailbox()
        self.vaults = {
            letter: VaultServer(f"vault-{letter}.example.com", self.authority, self.folder / f"vault-{letter}")
            for letter in vaults
        }
        host_map = {public: target for server in self.vaults.values() for public, target in server.host_map.items()}
        self.service = ServiceProcess(
            self.folder / "service",
            {"host_map": json.dumps(host_map), "smtp_url": self.mailbox.url, **(settings or {})},
        )
        self._stack = ExitStack()

    def __enter__(self) -> Landscape:
        try:
            self._stack.enter_context(self.mailbox)
            for server in self.vaults.values():
                self._stack.enter_context(server)
            self._stack.enter_context(self.service)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove the folder; safe to call twice."""
        self._stack.close()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def admit(self, letter: str, tenancy: Tenancy, version: int = 1) -> None:
        """Set one organization up on a server: mount, policy and certificate role."""
        server = self.vaults[letter]
        server.enable_mount(tenancy.mount, version)
        parameters = tenancy.role_parameters(self.authority.pem, tenancy.organization)
        server.enable_role(tenancy.role_name, tenancy.policy(version), parameters)

    def declaration(self, letter: str, organization: str, password: str, **changes: Any) -> dict[str, Any]:
        """Return the declaration of a self-administered keystore with a newly issued client certificate."""
        pfx = self.authority.issue(organization).pkcs12(password)
        return {
            "kind": "self-administered",
            "address": self.vaults[letter].address,
            "certificate": b64encode(pfx).decode(),
            "certificate_password": password,
            "server_ca": self.authority.pem,
            **changes,
        }
