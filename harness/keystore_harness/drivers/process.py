"""Servers as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from keystore_harness import workspace
from keystore_harness.binary import find_vault, version_of
from keystore_harness.errors import Unsupported
from keystore_harness.processes import go_on, stop_in_its_tracks

# In a mount namespace of its own, a process reads a file of ours where others read /etc/hosts.
_WITH_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


class ProcessDriver:
    """Runs a `bao` or `vault` binary.

    Raises:
        HarnessError: There is none.

    """

    name = "process"

    def __init__(self, binary: str | None = None) -> None:
        self.binary = find_vault(binary)
        self.version = version_of(self.binary)

    def machine(self, folder: Path) -> ProcessMachine:
        """Return a machine for the server whose configuration is `server.json` in a folder."""
        return ProcessMachine(self.binary, folder)


class ProcessMachine:
    """One process."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, hosts: Mapping[str, str]) -> None:
        """Start the process."""
        command = [str(self._binary), "server", f"-config={self._folder / 'server.json'}"]
        if hosts:
            command = [*_namespace(), "sh", "-c", _WITH_HOSTS, str(_hosts_file(self._folder, hosts)), *command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the binary found above
                command,
                stdout=log,
                stderr=log,
                env={
                    "PATH": os.environ.get("PATH", ""),
                    "HOME": str(self._folder),
                    **workspace.current().environment,
                },
            )

    @property
    def ended(self) -> str | None:
        """How the process ended; None while it runs."""
        if self._process is None:
            return "not started"
        status = self._process.poll()
        return None if status is None else f"exit status {status}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None  # noqa: S101
        return self._process.pid

    def kill(self) -> None:
        """Kill -9 the process; return when it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop the process (SIGSTOP)."""
        stop_in_its_tracks(self.pid)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        go_on(self.pid)

    def reload(self) -> None:
        """Make it read its certificate files again (SIGHUP)."""
        os.kill(self.pid, signal.SIGHUP)

    def log(self) -> str:
        """Return what it has logged since its first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        """Kill it."""
        self.kill()


def _hosts_file(folder: Path, hosts: Mapping[str, str]) -> Path:
    path = folder / "hosts"
    path.write_text("".join(f"{address}\t{name}\n" for name, address in {"localhost": "127.0.0.1", **hosts}.items()))
    return path


def _namespace() -> list[str]:
    if shutil.which("unshare") is None:
        raise Unsupported("partitions need `unshare` of util-linux to give each node its own view of the network")
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:  # noqa: S603
        raise Unsupported("partitions need root or user namespaces, and this machine gives neither")
    return command
