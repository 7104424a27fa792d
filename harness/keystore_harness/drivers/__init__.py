"""Where a server runs: as a process or in a container.

A driver knows the program; a machine is one place where it runs. Both use the same folder, the same configuration and
ports on 127.0.0.1 alone, so that everything above them is the same for either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from keystore_harness.errors import HarnessError

NAMES = ("process", "container", "existing")


class Machine(Protocol):
    """One place where a server runs, dies and sleeps."""

    def start(self, hosts: Mapping[str, str]) -> None:
        """Start the server; `hosts` are names that only it resolves, with their addresses."""

    @property
    def ended(self) -> str | None:
        """How the server ended; None while it runs."""

    @property
    def pid(self) -> int:
        """Process id of the running server, as this machine's kernel counts them."""

    def kill(self) -> None:
        """Kill -9 it; return when it is gone. Nothing if it does not run."""

    def pause(self) -> None:
        """Stop it in its tracks."""

    def resume(self) -> None:
        """Let a paused one go on."""

    def reload(self) -> None:
        """Make it read its certificate files again (SIGHUP)."""

    def log(self) -> str:
        """Return what it has logged since its first start."""

    def close(self) -> None:
        """Kill it and remove what the driver made; safe to call twice."""


class Driver(Protocol):
    """A way to run servers."""

    @property
    def name(self) -> str:
        """Its name, as in `--keystore-driver`."""

    @property
    def version(self) -> tuple[str, str]:
        """Product and version of the servers it runs."""

    def machine(self, folder: Path) -> Machine:
        """Return a machine for the server whose configuration is `server.json` in a folder."""


def driver(name: str, *, binary: str | None = None, image: str | None = None) -> Driver:
    """Return the driver `process` or `container`.

    Raises:
        HarnessError: There is no such driver, or what it needs is missing.

    """
    # Imported here: who wants processes needs no Docker client.
    if name == "process":
        from keystore_harness.drivers.process import ProcessDriver  # noqa: PLC0415

        return ProcessDriver(binary)
    if name == "container":
        from keystore_harness.drivers.container import ContainerDriver  # noqa: PLC0415

        return ContainerDriver(image, binary)
    raise HarnessError(f"no driver {name!r}; expected process or container")


def why_ended(log: str) -> str:
    """Return what a log says about why its server ended: one line."""
    if taken := re.search(r"listen tcp4? (\S+): bind: address already in use", log):
        return f"{taken[1]} is in use; stop what listens there, or choose another port"
    lines = [line.strip() for line in log.splitlines() if "rror" in line]
    return lines[-1] if lines else "its log says nothing; see whether the binary runs by hand"
