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

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers one has all of these (`--dist loadgroup`): each would start a PostgreSQL of its own."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.xdist_group("database"))


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
def database_url(postgres: EmbeddedPostgres, template: str) -> str:
    """A database of this version's schema, in which nothing is."""
    return new_database(postgres, template)


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
