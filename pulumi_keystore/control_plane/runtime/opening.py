"""Opening the control plane's database and master key, without serving anything: what commands can do, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pulumi_keystore.control_plane.runtime.database import (
    check_master_key,
    check_schema,
    connect,
    knows_master_key,
    sessions,
    upgrade_schema,
)
from pulumi_keystore.control_plane.runtime.embedded_postgres import EmbeddedPostgres
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault.resolver import HostMap, Resolver


@dataclass(frozen=True, slots=True)
class Opened:
    """An open control plane, and its database where it is the embedded one."""

    plane: ControlPlane
    embedded: EmbeddedPostgres | None


@contextmanager
def opened(settings: Settings, *, as_guest: bool = False) -> Iterator[Opened]:
    """Open database and master key, without serving anything.

    Args:
        settings: What to open.
        as_guest: Take both as another process has made them; make nothing.

    Raises:
        KeystoreError: A setting is unusable, or the database cannot be reached.

    """
    with ExitStack() as stack:
        url, embedded = settings.database_url, None
        if url is None and as_guest:
            raise KeystoreError(
                "no database is named", hint="give --database-url, or KEYSTORE_DATABASE_URL, of the service's database"
            )
        if url is None:
            embedded = EmbeddedPostgres(settings.data)
            stack.callback(embedded.stop)
            url = embedded.url
        engine = connect(url)
        stack.callback(engine.dispose)
        key_file = settings.master_key_file or settings.data / "master.key"
        if as_guest:
            check_schema(engine)
            key = MasterKey.load(key_file)
        else:
            # A new one beside a database that has one would open nothing of it. Before anything of that is changed.
            known = knows_master_key(engine)
            key = MasterKey.load(key_file) if known else MasterKey.load_or_create(key_file)
            if known:
                check_master_key(sessions(engine), key)
            upgrade_schema(engine)
        factory = sessions(engine)
        check_master_key(factory, key)
        plane = ControlPlane(settings, factory, key, Resolver(HostMap.parse(settings.host_map)))
        yield Opened(plane, embedded)
