"""One server: TLS, raft storage on disk, Shamir seal 3 of 5, certificate login, audit device; and how it breaks."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import hvac
import requests

from keystore_harness import drivers, workspace
from keystore_harness.ca import CertificateAuthority, Issued
from keystore_harness.disk import Disk
from keystore_harness.drivers import Driver, why_ended
from keystore_harness.errors import HarnessError, Unsupported
from keystore_harness.listener import Listener
from keystore_harness.network import Toxiproxy
from keystore_harness.ports import free_port, wait_until
from keystore_harness.timeline import Timeline
from keystore_harness.vault import SHARES, THRESHOLD, Vault

_START_TIMEOUT_S = 60
_BALLAST = 500_000


class VaultServer(Vault):
    """One server on 127.0.0.1, known to clients by a public DNS name.

    Use it as a context manager; it ends and removes everything it made. Each verb waits for what it promises.

    Args:
        name: The DNS name in the server's certificate.
        ca: The CA that issues the server's certificate and is trusted for client certificates; a new one by
            default.
        driver: `process`, `container`, or a driver.
        network: A Toxiproxy to put between it and its clients, for faults of the network.
        disk_mb: Size of a disk of its own, for `disk_full()`; needs root, and at least 32.
        port: The port clients use, a free one by default.
        timeline: Where its faults are recorded, one of its own by default.
        node: What it is called in storage and timeline, its name by default.
        member: Whether it is one node of a cluster of several: then it may be unsealed and not become active.

    Raises:
        HarnessError: The driver lacks something.

    """

    def __init__(
        self,
        name: str = "vault.example.com",
        ca: CertificateAuthority | None = None,
        *,
        driver: str | Driver = "process",
        network: Toxiproxy | None = None,
        disk_mb: int | None = None,
        port: int | None = None,
        timeline: Timeline | None = None,
        node: str = "",
        member: bool = False,
    ) -> None:
        self.name = name
        self._member = member
        self.node = node or name
        self.ca = ca or CertificateAuthority()
        self.driver = drivers.driver(driver) if isinstance(driver, str) else driver
        self.timeline = timeline or Timeline()
        self.port = port or free_port()
        self.shares = []
        self.root_token = ""
        self._toxiproxy = network
        self._proxy = None
        self.folder = folder = workspace.current().subfolder(self.node)
        # Clients come in by one, whose certificate may go bad, administrators by the other.
        public_port = self.port if network is None else free_port()
        self._public = Listener(folder / "public.pem", public_port, free_port())
        self._admin = Listener(folder / "admin.pem", free_port(), free_port())
        self.cluster_host = "127.0.0.1"
        self.hosts: Mapping[str, str] = {}
        self._data = folder / "raft"
        self._disk = Disk(self._data, disk_mb) if disk_mb is not None else None
        self._machine = self.driver.machine(self.folder)

    @property
    def version(self) -> tuple[str, str]:
        """Product and version, such as ("OpenBao", "2.7.2")."""
        return self.driver.version

    @property
    def storage_url(self) -> str:
        """Where the administrator's requests go."""
        return f"https://127.0.0.1:{self._admin.port}"

    @property
    def public_port(self) -> int:
        """The port it listens on for clients, behind Toxiproxy where there is one."""
        return self._public.port

    @property
    def cluster_port(self) -> int:
        """The port it listens on for other nodes of its cluster."""
        return self._admin.cluster_port

    @property
    def cluster_address(self) -> str:
        """What other nodes of its cluster call it."""
        return f"https://{self.cluster_host}:{self.cluster_port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._machine.pid

    @property
    def running(self) -> bool:
        """Whether there is a process of it."""
        return self._machine.ended is None

    def log(self) -> str:
        """Return what it has logged since its first start."""
        return self._machine.log()

    # Life.

    def __enter__(self) -> VaultServer:
        try:
            self.start()
            self.initialize()
            self.unseal()
            wait_until(lambda: self.active, f"{self.node} to become active", _START_TIMEOUT_S)
            self.enable_certificate_login()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it answers; an initialized one is sealed then.

        Raises:
            HarnessError: It ends instead, for example because its port is in use.

        """
        self._data.mkdir(exist_ok=True)
        if self._disk is not None:
            self._disk.mount()
        self._write_configuration()
        if self._toxiproxy is not None and self._proxy is None:
            self._proxy = self._toxiproxy.proxy(self.name, self._public.port, port=self.port, timeline=self.timeline)
        self._machine.start(self.hosts)
        wait_until(self._answers, f"{self.node} to answer", _START_TIMEOUT_S)
        self.timeline.end(self.node, "killed")

    def close(self) -> None:
        """End the server and remove what was made; safe to call twice."""
        self._machine.close()
        if self._proxy is not None:
            with contextlib.suppress(OSError, HarnessError):
                self._proxy.close()
            self._proxy = None
        workspace.unmount_below(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_configuration(self) -> None:
        if not self._public.certificate.exists():
            self._public.write(self.ca.issue_server(self.name, self.alias, "127.0.0.1"))
            self._admin.write(self.ca.issue_server(self.name, "127.0.0.1"))
        configuration = {
            "api_addr": self.storage_url,
            "cluster_addr": self.cluster_address,
            "disable_mlock": True,
            "ui": False,
            "log_level": "info",
            # OpenBao otherwise takes audit devices from this file only, and Vault has no such section in it.
            "unsafe_allow_api_audit_creation": True,
            "storage": {"raft": {"path": str(self._data), "node_id": self.node, "performance_multiplier": "1"}},
            "listener": [{"tcp": self._public.configuration}, {"tcp": self._admin.configuration}],
        }
        (self.folder / "server.json").write_text(json.dumps(configuration))

    def _answers(self) -> bool:
        ended = self._machine.ended
        if ended is not None:
            raise HarnessError(f"{self.node} does not start ({ended}): {why_ended(self.log())}")
        try:
            self.client(token="", timeout_s=5).sys.read_seal_status()
        except (hvac.exceptions.VaultError, requests.exceptions.RequestException):
            return False
        return True

    def initialize(self) -> None:
        """Make root token and unseal shares, which stay in memory here."""
        answer = self.client(token="").sys.initialize(secret_shares=SHARES, secret_threshold=THRESHOLD)
        self.shares, self.root_token = list(answer["keys_base64"]), str(answer["root_token"])

    def enable_certificate_login(self) -> None:
        """Enable certificate login, and an audit device that writes a file in the server's folder."""
        self.client().sys.enable_auth_method("cert")
        self._audit()

    def _audit(self) -> None:
        self.client().sys.enable_audit_device("file", path="file", options={"file_path": str(self.audit_log)})

    @property
    def audit_log(self) -> Path:
        """The file that the audit device writes: a line of JSON a request, values hashed."""
        return self.folder / "audit.log"

    def _is_open_again(self) -> bool:
        with contextlib.suppress(hvac.exceptions.VaultError, requests.exceptions.RequestException):
            if self.sealed:
                self.submit_shares()
        return self.active

    def become(self, other: VaultServer, snapshot: bytes) -> None:
        """Take over what another server's snapshot holds, its cluster id, unseal shares and root token with it.

        Raises:
            hvac.exceptions.VaultError: The snapshot is refused.

        """
        self.client(timeout_s=120).sys.force_restore_raft_snapshot(snapshot)
        # It reloads what it keeps in memory, finds that it cannot open it with the keys of before, and seals itself.
        wait_until(lambda: not self.active, f"{self.node} to have taken the snapshot", _START_TIMEOUT_S)
        self.shares, self.root_token = list(other.shares), other.root_token
        self.kill()
        self.start()
        self.submit_shares()
        wait_until(lambda: self.active, f"{self.node} to become active", _START_TIMEOUT_S)
        # The snapshot names the file of the other one.
        self.client().sys.disable_audit_device("file")
        self._audit()

    # Seal.

    def seal(self) -> None:
        """Seal the server; return when it is sealed."""
        self.client().sys.seal()
        wait_until(lambda: self.sealed, f"{self.node} to be sealed")
        self.timeline.begin(self.node, "sealed")

    def submit_share(self, share: str) -> int:
        """Give the server one unseal share; return how many it has then (0 when that unsealed it).

        Raises:
            hvac.exceptions.VaultError: The share is not one, or with the others makes no key.

        """
        return int(self.client(token="").sys.submit_unseal_key(key=share)["progress"])

    def forget_shares(self) -> None:
        """Make the server forget the shares it was given so far."""
        self.client(token="").sys.submit_unseal_key(reset=True)

    def unseal(self, shares: Iterable[str] | None = None) -> None:
        """Unseal with three shares (or those given); return when the server is active, or a cluster's node unsealed.

        Raises:
            HarnessError: The shares do not unseal it.

        """
        self.submit_shares(shares)
        if not self._member:
            wait_until(lambda: self.active, f"{self.node} to become active", _START_TIMEOUT_S)
        self.timeline.end(self.node, "sealed")

    def submit_shares(self, shares: Iterable[str] | None = None) -> None:
        """Give the server three shares (or those given) while it is sealed.

        Raises:
            HarnessError: The shares given do not unseal it.

        """
        for share in self.shares[:THRESHOLD] if shares is None else shares:
            if self.sealed:
                self.submit_share(share)
        if shares is not None and self.sealed:
            self.forget_shares()
            raise HarnessError(f"{self.node} stays sealed: expected {THRESHOLD} different shares of the {SHARES}")

    @contextlib.contextmanager
    def sealed_for_a_while(self) -> Iterator[None]:
        """Seal; unseal at the end whatever happens."""
        self.seal()
        try:
            yield
        finally:
            self.unseal()

    # Death and sleep.

    def kill(self) -> None:
        """Kill -9 the server; return when it is gone."""
        self._machine.kill()
        self.timeline.begin(self.node, "killed")

    def restart(self) -> None:
        """Start the server again on the same data and ports, and unseal it."""
        self.kill()
        self.start()
        self.unseal()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Kill -9 the server; start and unseal it at the end whatever happens."""
        self.kill()
        try:
            yield
        finally:
            self.restart()

    @contextlib.contextmanager
    def restarted_sealed(self) -> Iterator[None]:
        """Restart the server and leave it sealed, as after a power failure; unseal it at the end."""
        self.kill()
        self.start()
        self.timeline.begin(self.node, "sealed")
        try:
            yield
        finally:
            self.unseal()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the server in its tracks: connections stay open, new ones are taken, and nothing answers."""
        with self.timeline.fault(self.node, "paused"):
            self._machine.pause()
            try:
                yield
            finally:
                self._machine.resume()
                wait_until(self._answers, f"{self.node} to answer again", _START_TIMEOUT_S)

    # Its certificate.

    @property
    def shown_certificate(self) -> str:
        """The certificate in PEM that it shows to clients now."""
        return self._public.shows

    @contextlib.contextmanager
    def showing(self, certificate: Issued, what: str = "another certificate") -> Iterator[None]:
        """Show clients another certificate; the right one again at the end."""
        before = self._public.kept()
        with self.timeline.fault(self.node, what):
            self._show(certificate.certificate_pem, certificate.key_pem)
            try:
                yield
            finally:
                self._show(*before)

    def _show(self, certificate: str, key: str) -> None:
        self._public.restore(certificate, key)
        self._machine.reload()
        wait_until(lambda: self._public.shows.strip() == certificate.strip(), f"{self.node} to show the certificate")

    def expired_certificate(self) -> contextlib.AbstractContextManager[None]:
        """Show a certificate that ended an hour ago."""
        expired = self.ca.issue_server(self.name, self.alias, "127.0.0.1", expired=True)
        return self.showing(expired, "expired certificate")

    def wrong_name(self) -> contextlib.AbstractContextManager[None]:
        """Show a certificate for another name."""
        return self.showing(self.ca.issue_server("another.example.com"), "certificate of another name")

    def new_authority(self) -> contextlib.AbstractContextManager[None]:
        """Show a certificate of a CA that no client knows."""
        other = CertificateAuthority("Another throw-away test CA")
        return self.showing(other.issue_server(self.name, self.alias, "127.0.0.1"), "certificate of another CA")

    # Its disk.

    @contextlib.contextmanager
    def disk_full(self) -> Iterator[None]:
        """Fill the server's disk to the last byte; room again at the end, and a restart if the server gave up.

        Raises:
            Unsupported: It has no disk of its own.

        """
        if self._disk is None:
            raise Unsupported(f"{self.node} shares its disk with everybody; start it with disk_mb=64")
        with self.timeline.fault(self.node, "disk full"):
            try:
                self._disk.fill()
                # The database file has room of its own: fill that, too, until a write is refused.
                wait_until(lambda: not self.stores(secrets.token_hex(8), _BALLAST), "a write to be refused", 120, 0)
                yield
            finally:
                self._disk.make_room()
                if self._machine.ended is not None or not self.stores("probe", 1):
                    self.restart()
                wait_until(lambda: self.stores("probe", 1), f"{self.node} to write again", _START_TIMEOUT_S)
                self.forget_stored()
