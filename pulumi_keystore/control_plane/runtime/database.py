"""The database: PostgreSQL by URL or embedded, its schema, and the lock that lets one service rule."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.control_plane.runtime.sealing import MasterKey
from pulumi_keystore.control_plane.runtime.tables import Fact
from pulumi_keystore.errors import KeystoreError

_CHECK: Final = "master-key-check"


_SEVERAL_HOSTS = re.compile(
    r"(?P<scheme>postgres(ql)?(\+psycopg)?)://(?P<user>[^@/]*@)?(?P<hosts>[^/?@]*,[^/?@]*)(?P<name>/[^?]*)?(\?(?P<query>.*))?"
)
_NETWORK: Final = {
    "connect_timeout": "10",
    # A machine that vanished, or a firewall that forgot: known within twenty seconds (libpq, "Parameter Key Words").
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "5",
    "tcp_user_timeout": "20000",
}


def connect(url: str) -> Engine:
    """Return an engine for a PostgreSQL URL (`postgresql://…`, any SQLAlchemy spelling).

    Raises:
        KeystoreError: The URL is not PostgreSQL's, or nothing answers there. The URL's password is not quoted.

    """
    parsed = _parsed(url)
    if parsed is None:
        raise KeystoreError(
            "the database URL is not a PostgreSQL URL", hint="give postgresql://USER:PASSWORD@HOST:PORT/NAME"
        )
    engine = create_engine(
        parsed.set(query={**_NETWORK, **parsed.query}),
        # What a statement carries may be a user's or a keystore's: it is in no error and no log.
        hide_parameters=True,
        pool_pre_ping=True,
        # As many as requests are answered at a time: connections above the size are closed after each use, and who has
        # much to do would have to open one each time.
        pool_size=40,
        max_overflow=10,
        pool_use_lifo=True,
    )
    shown = parsed.set(drivername="postgresql").render_as_string(hide_password=True)
    try:
        ours = _keeps_connections(engine)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise KeystoreError(
            f"the database {shown} cannot be reached: {reason}",
            hint="check KEYSTORE_DATABASE_URL and that PostgreSQL runs",
        ) from None
    if not ours:
        raise KeystoreError(
            f"the database {shown} is behind a pooler that changes connections between transactions",
            hint="a lock belongs to a connection: set pool_mode=session in PgBouncer, or name PostgreSQL itself in "
            "KEYSTORE_DATABASE_URL",
        )
    return engine


def _parsed(url: str) -> URL | None:
    """Return a URL as SQLAlchemy takes it, None where it is not PostgreSQL's."""
    if not url.startswith(("postgresql", "postgres:")):
        return None
    try:
        return make_url(_with_hosts_in_query(url)).set(drivername="postgresql+psycopg")
    except (ValueError, SQLAlchemyError):
        return None


def hosts_of(url: str) -> list[str]:
    """Return the names of the hosts in a PostgreSQL URL; sockets have none."""
    parsed = _parsed(url)
    if parsed is None:
        return []
    named = parsed.query.get("host", ())
    hosts = named.split(",") if isinstance(named, str) else named
    return [host for host in (parsed.host or "", *hosts) if host and not host.startswith("/")]


def _keeps_connections(engine: Engine) -> bool:
    """Tell whether a connection leads to one process of the server for as long as it is open.

    A pooler that lends processes to transactions gives the second connection the process that the first one has just
    used, or gives the first one another process while the second has its own.
    """
    process = text("select pg_backend_pid()")
    with engine.connect() as one, engine.connect() as other:
        before = one.scalar(process)
        one.rollback()
        meanwhile = other.scalar(process)
        return bool(meanwhile != before and one.scalar(process) == before)


def _with_hosts_in_query(url: str) -> str:
    """Return a URL of several hosts as both SQLAlchemy and libpq read it; of these the one that can write is used."""
    found = _SEVERAL_HOSTS.fullmatch(url)
    if found is None:
        return url
    ends = [
        end.rpartition(":") if re.search(r":[0-9]+$", end) else (end, "", "5432") for end in found["hosts"].split(",")
    ]
    query = f"host={','.join(host.strip('[]') for host, _, _ in ends)}&port={','.join(port for _, _, port in ends)}"
    if "target_session_attrs" not in (found["query"] or ""):
        query += "&target_session_attrs=read-write"
    rest = f"&{found['query']}" if found["query"] else ""
    return f"{found['scheme']}://{found['user'] or ''}{found['name'] or '/'}?{query}{rest}"


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


def check_schema(engine: Engine) -> str:
    """Make sure that the schema is of this version; return which that is.

    Raises:
        KeystoreError: It is of another one, or there is none.

    """
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    wanted = ScriptDirectory.from_config(_schema()).get_current_head()
    if found is None or found != wanted:
        raise KeystoreError(
            f"the database's schema is of version {found or 'none'}, and this program works with {wanted}",
            hint="run the service and its workers in the same version; start the service first",
        )
    return found


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
