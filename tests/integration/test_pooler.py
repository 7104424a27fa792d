"""PostgreSQL behind a pooler of connections: PgBouncer, as Debian has it."""

import subprocess
from contextlib import contextmanager

import httpx
import pytest
from keystore_harness import ServiceProcess, wait_until, workspace
from keystore_harness.database import Database
from keystore_harness.interceptor import Plan
from keystore_harness.ports import free_port

from pulumi_keystore.control_plane.runtime.database import connect
from pulumi_keystore.errors import KeystoreError
from tests import debian


@pytest.fixture(scope="module")
def database():
    with Database(workspace.current().subfolder("p"), Plan(hang_s=1)) as database:
        yield database


@contextmanager
def pgbouncer(database, mode, **settings):
    """Run PgBouncer before a database; yield the URL for clients."""
    debian.require("pgbouncer", "pgbouncer")
    folder, port = workspace.current().subfolder("pgbouncer"), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "pgbouncer.ini"
    further = "\n".join(f"{name} = {value}" for name, value in settings.items())
    configuration.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={database.port} user=postgres\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n{further}\n"
    )
    log = (folder / "log").open("w")
    process = subprocess.Popen(["pgbouncer", "-u", "nobody", configuration], stdout=log, stderr=log)
    try:
        wait_until(lambda: "process up" in (folder / "log").read_text(), "PgBouncer to start", 60)
        yield f"postgresql://postgres:CANARY@127.0.0.1:{port}/postgres?sslmode=disable"
    finally:
        process.terminate()
        process.wait(60)
        log.close()


@pytest.mark.parametrize("settings", [{}, {"server_round_robin": 1}, {"default_pool_size": 1}], ids=str)
def test_a_pooler_that_changes_connections_between_transactions_is_refused(database, settings):
    with pgbouncer(database, "transaction", **settings) as url:
        for _ in range(3):
            with pytest.raises(KeystoreError, match="behind a pooler") as caught:
                connect(url)
        assert "pool_mode=session" in caught.value.hint
        assert "CANARY" not in str(caught.value)


def test_the_service_says_so_in_a_line(database):
    with pgbouncer(database, "transaction") as url:
        service = ServiceProcess({"database_url": url})
        with pytest.raises(RuntimeError, match="ended with status 1"):
            service.start()
        said = service.log.read_text()
    assert "pool_mode=session" in said
    assert "Traceback" not in said


def test_the_service_works_where_a_connection_stays_one(database):
    with pgbouncer(database, "session", default_pool_size=80) as url:
        service = ServiceProcess({"database_url": url})
        service.start()
        try:
            assert httpx.get(f"{service.url}/readyz").status_code == 200
            connect(url).dispose()
        finally:
            service.stop()
