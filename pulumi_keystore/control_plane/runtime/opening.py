"""Opening the control plane's database and master key, without serving anything: what commands can do, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from pulumi_keystore.control_plane.runtime.database import (
    check_master_key,
    check_schema,
    connect,
    knows_master_key,
    sessions,
    upgrade_schema,
)
from pulumi_keystore.control_plane.runtime.embedded_postgres import EmbeddedPostgres, require_database
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.vault.resolver import HostMap, Resolver


@dataclass(frozen=True, slots=True)
class Opened:
    """An open control plane, and its database where it is the embedded one."""

    plane: ControlPlane
    embedded: EmbeddedPostgres | None


@contextmanager
def opened(settings: Settings, lead: Callable[[Engine], None] | None = None) -> Iterator[Opened]:
    """Open database and master key, without serving anything.

    Args:
        settings: What to open.
        lead: Makes this process the service that leads. Only then are a database, a master key and tables made, or
            tables upgraded; without it they are taken as the service has made them.

    Raises:
        KeystoreError: A setting is unusable, or the database cannot be reached.

    """
    with reached(settings, make=lead is not None) as (engine, embedded):
        key_file = key_file_of(settings)
        key = _as_it_is(engine, key_file) if lead is None else _led(engine, key_file, lead)
        check_master_key(sessions(engine), key)
        yield Opened(plane_of(settings, engine, key), embedded)


@contextmanager
def reached(settings: Settings, *, make: bool = False) -> Iterator[tuple[Engine, EmbeddedPostgres | None]]:
    """Connect to the database, whatever is in it; `make` the embedded one where there is none.

    Raises:
        KeystoreError: It cannot be reached.

    """
    with ExitStack() as stack:
        url, embedded = settings.database_url, None
        if url is None:
            if not make:
                require_database(settings.data)
            embedded = EmbeddedPostgres(settings.data)
            stack.callback(embedded.stop)
            url = embedded.url
        engine = connect(url)
        stack.callback(engine.dispose)
        yield engine, embedded


def key_file_of(settings: Settings) -> Path:
    """Return where the master key is."""
    return settings.master_key_file or settings.data / "master.key"


def plane_of(settings: Settings, engine: Engine, key: MasterKey) -> ControlPlane:
    """Return the control plane of a database and its master key."""
    return ControlPlane(settings, sessions(engine), key, Resolver(HostMap.parse(settings.host_map)))


def _as_it_is(engine: Engine, key_file: Path) -> MasterKey:
    check_schema(engine)
    return MasterKey.load(key_file)


def _led(engine: Engine, key_file: Path, lead: Callable[[Engine], None]) -> MasterKey:
    """Return the master key, the schema being of this version; nothing is made or changed before this process leads."""
    if knows_master_key(engine):
        # A wrong key is told at once, not after waiting for the lead.
        check_master_key(sessions(engine), MasterKey.load(key_file))
    lead(engine)
    # A new one beside a database that has one would open nothing of it.
    key = MasterKey.load(key_file) if knows_master_key(engine) else MasterKey.load_or_create(key_file)
    upgrade_schema(engine)
    return key
