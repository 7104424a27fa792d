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
    yield server
    server.stop()


def new_database(postgres: EmbeddedPostgres) -> str:
    """Make an empty database; return its URL."""
    name = f"d{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.url.replace("/postgres?", f"/{name}?")


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> str:
    return new_database(postgres)


@pytest.fixture
def master_key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "master.key"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database of this version's schema."""
    engine = connect(database_url)
    upgrade_schema(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def factory(engine: Engine) -> sessionmaker[Session]:
    """What opens sessions on it."""
    return sessions(engine)
