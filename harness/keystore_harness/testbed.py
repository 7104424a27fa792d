"""Everything a migration needs, on one machine: Vault servers, a mailbox, and the service that knows them."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from keystore_harness import drivers, workspace
from keystore_harness.ca import CertificateAuthority
from keystore_harness.cluster import VaultCluster
from keystore_harness.drivers import Driver
from keystore_harness.line import Line
from keystore_harness.mailbox import Mailbox
from keystore_harness.network import Toxiproxy
from keystore_harness.ports import free_port
from keystore_harness.server import VaultServer
from keystore_harness.service import ServiceProcess
from keystore_harness.tenancy import Tenancy
from keystore_harness.tenant import Tenant
from keystore_harness.timeline import Timeline


class Testbed:
    """Vault servers `vault-a`, `vault-b`, … of example.com, a mailbox and a service. Use it as a context manager.

    Args:
        vaults: The letters of the single servers.
        clusters: The letters of clusters of three.
        settings: Further settings of the service.
        driver: How servers run: `process`, `container` or a driver.
        network: A Toxiproxy to put before every server.
        disk_mb: Size of a disk of its own for every single server, for `disk_full()`.
        timeline: Where all faults are recorded, one of its own by default.
        lines: Whether each single server is reached by a `Line`, `testbed.lines[letter]`, which can lead elsewhere.

    """

    __test__ = False  # its name begins as those of tests do

    def __init__(
        self,
        vaults: str = "ab",
        settings: Mapping[str, str] | None = None,
        *,
        clusters: str = "",
        driver: str | Driver = "process",
        network: Toxiproxy | None = None,
        disk_mb: int | None = None,
        timeline: Timeline | None = None,
        lines: bool = False,
    ) -> None:
        self.folder = workspace.current().subfolder("testbed")
        self.timeline = timeline or Timeline()
        self.ca = CertificateAuthority()
        self.mailbox = Mailbox()
        self._driver = driver = drivers.driver(driver) if isinstance(driver, str) else driver
        self.servers = {
            letter: VaultServer(
                f"vault-{letter}.example.com", self.ca,
                driver=driver, network=network, disk_mb=disk_mb, timeline=self.timeline,
            )
            for letter in vaults
        }  # fmt: skip
        self.clusters = {
            letter: VaultCluster(
                f"vault-{letter}.example.com", self.ca, driver=driver, network=network, timeline=self.timeline
            )
            for letter in clusters
        }
        self.vaults: dict[str, VaultServer | VaultCluster] = {**self.servers, **self.clusters}
        self.lines = {
            letter: Line(server.name, server.port, self.timeline) for letter, server in self.servers.items() if lines
        }
        host_map = {public: target for vault in self.vaults.values() for public, target in vault.host_map.items()}
        for letter, line in self.lines.items():
            server = self.servers[letter]
            host_map |= dict.fromkeys(server.host_map, f"127.0.0.1:{line.port}")
        self.service = ServiceProcess(
            {"host_map": json.dumps(host_map), "smtp_url": self.mailbox.url, **(settings or {})}, self.timeline
        )
        self._stack = ExitStack()
        self._further: list[VaultServer] = []

    def __enter__(self) -> Testbed:
        try:
            self._stack.enter_context(self.mailbox)
            for vault in self.vaults.values():
                self._stack.enter_context(vault)
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
        for line in self.lines.values():
            line.close()
        for vault in (*self.vaults.values(), *self._further):
            vault.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def admit(self, letter: str, organization: str | Tenancy, version: int = 1) -> Tenant:
        """Set one organization up on a server: mount, policy and certificate role."""
        return self.vaults[letter].admit(organization, version=version)

    def rebuilt(self, letter: str) -> VaultServer:
        """Start another server of the same public name: empty, and so another cluster. Lead a line to it."""
        server = self._another(letter)
        server.__enter__()
        return server

    def clone(self, letter: str, snapshot: bytes) -> VaultServer:
        """Start another server of the same public name from a snapshot: to its clients the same cluster."""
        server = self._another(letter)
        server.start()
        server.initialize()
        server.unseal()
        server.become(self.servers[letter], snapshot)
        return server

    def _another(self, letter: str) -> VaultServer:
        first = self.servers[letter]
        node = f"{first.name}-{len(self._further) + 1}"
        server = VaultServer(
            first.name, self.ca, driver=self._driver, timeline=self.timeline, node=node, port=free_port()
        )
        self._further.append(server)
        return server

    def declaration(self, letter: str, organization: str, password: str, **changes: Any) -> dict[str, Any]:
        """Return the declaration of a self-administered keystore with a newly issued client certificate."""
        pfx = self.ca.issue(organization).pkcs12(password)
        return {
            "kind": "self-administered",
            "address": self.vaults[letter].address,
            "certificate": b64encode(pfx).decode(),
            "certificate_password": password,
            "server_ca": self.ca.pem,
            **changes,
        }
