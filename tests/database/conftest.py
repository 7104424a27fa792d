"""One embedded PostgreSQL for all tests here, and a database of each one's own; no service, and no Vault."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.control_plane.runtime.database import connect, sessions, upgrade_schema
from pulumi_keystore.control_plane.runtime.embedded_postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    # A socket's path is short; with xdist each worker has a folder of its own.
    server = EmbeddedPostgres(tmp_path_factory.mktemp("d"))
    with psycopg.connect(server.url, autocommit=True) as connection:
        # A hundred databases come and go, and none of them has to survive a power failure.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def used() -> list[str]:
    """The URLs of databases that can be had again: each has three hundred files, and to remove those took longer."""
    return []


def new_database(postgres: EmbeddedPostgres, template: str = "template1") -> str:
    """Make a database, an empty one or a copy; return its URL."""
    name = f"d{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return postgres.url.replace("/postgres?", f"/{name}?")


@pytest.fixture(scope="session")
def template(postgres: EmbeddedPostgres) -> str:
    """The name of a database of this version's schema: to copy it costs a tenth of making the schema anew."""
    engine = connect(new_database(postgres))
    upgrade_schema(engine)
    engine.dispose()
    return str(engine.url.database)


@pytest.fixture
def empty_database_url(postgres: EmbeddedPostgres) -> str:
    return new_database(postgres)


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, template: str, used: list[str]) -> Iterator[str]:
    """A database of this version's schema, in which nothing is."""
    url = used.pop() if used else new_database(postgres, template)
    yield url
    if _emptied(url):
        used.append(url)


def _emptied(url: str) -> bool:
    """Empty a database of all but its version; False where a test has put more into it than rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        if {schema for schema, _ in tables} != {"public"}:
            return False
        rows = ", ".join(table for _, table in tables if table != "alembic_version")
        # A history refuses even this.
        connection.execute("SET session_replication_role = replica")
        connection.execute(f"TRUNCATE {rows} RESTART IDENTITY CASCADE")
    return True


@pytest.fixture
def master_key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "master.key"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def factory(engine: Engine) -> sessionmaker[Session]:
    """What opens sessions on it."""
    return sessions(engine)
