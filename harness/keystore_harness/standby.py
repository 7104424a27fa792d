"""A second PostgreSQL that follows the first one, and can take its place (PostgreSQL manual, "High Availability")."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from keystore_harness.errors import HarnessError
from keystore_harness.ports import free_port, wait_until

if TYPE_CHECKING:
    from keystore_harness.database import Database


class Standby:
    """A replica of a database by streaming, on a TCP port of 127.0.0.1. Use it as a context manager.

    Args:
        primary: What it follows.
        folder: Where its data lies; a short path, and nothing there yet.

    """

    def __init__(self, primary: Database, folder: Path) -> None:
        self._primary = primary
        self._folder = folder
        self.port = free_port()

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"postgresql://postgres:@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def __enter__(self) -> Standby:
        self._primary.make_folder(self._folder)
        source = ("-h", str(self._primary.socket.parent), "-U", "postgres")
        self._primary.tool("pg_basebackup", *source, "-D", str(self._folder), "-R", "-X", "stream", "-c", "fast")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder}"
        self._control("start", "-w", "-l", str(self._folder / "log"), "-o", options)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(HarnessError):
            self._control("stop", "-m", "immediate")

    def catch_up(self) -> None:
        """Wait until everything that the primary has committed by now is here, too."""
        wanted = self._primary.ask("select pg_current_wal_lsn()")
        here = f"select pg_last_wal_replay_lsn() >= '{wanted}'"
        wait_until(lambda: self._primary.ask(here, self.url) == "t", "the standby to catch up", 60)

    def promote(self) -> None:
        """Let it be the primary from now on; the one before has to be gone."""
        self._control("promote", "-w")

    def _control(self, *arguments: str) -> None:
        self._primary.tool("pg_ctl", "-D", str(self._folder), *arguments)
