"""Who was replaced changes nothing any more: neither a worker nor a service that was paused and goes on later."""

import contextlib
import json
import os
import signal
import threading
import time

import pytest
from keystore_harness import wait_until
from keystore_harness.processes import stop_in_its_tracks
from keystore_harness.service import ServiceProcess, WorkerProcess
from sqlalchemy import text

from pulumi_keystore.client import Client
from pulumi_keystore.control_plane.keystores import fencing
from pulumi_keystore.control_plane.migration import shards
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.control_plane.runtime.database import connect
from pulumi_keystore.control_plane.runtime.leadership import SUPERSEDED_STATUS, Superseded
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import InMaintenance, KeystoreError
from tests.conftest import WHOLE
from tests.torture.stage import stage

# How long somebody is paused, and how long he is watched after he was let go.
PAUSE_S, AFTERWARDS_S = (300, 5) if WHOLE else (2, 2)
SUCCEEDED = "Migration succeeded"
CANCELED = "Migration canceled: migration process stalled"


@pytest.fixture(scope="module")
def crew():
    """A service that moves nothing itself, and two workers."""
    # Few requests at a time: most writes of a shard come after it was stopped.
    with stage(intercepted=False, failpoints=True, slots="0", in_flight="2") as made:
        made.workers = [WorkerProcess(made.testbed.service) for _ in range(2)]
        with made.workers[0], made.workers[1]:
            yield made


def pause_a_worker(crew, point):
    """Start a migration; stop the worker that comes to a moment first in its tracks."""
    crew.plan_moments(f"{point} wait")
    row = crew.start()
    wait_until(lambda: crew.struck, point, interval_s=0.01)
    pid = int(crew.struck.split()[1])
    worker = next(worker for worker in crew.workers if worker.pid == pid)
    worker.pause()
    crew.go()
    return row, worker


def writes_of(crew, keystore, since):
    """What the server's audit log says of writes and deletions of keys that were let through, by any token."""
    lines = (crew.server(keystore).folder / "audit.log").read_text().splitlines()[since:]
    return [line for line in lines if '"type":"response"' in line and '"error"' not in line and _changes(line)]


def _changes(line):
    return '"path":"archive-keys/acme/' in line and any(
        f'"operation":"{operation}"' in line for operation in ("create", "update", "delete")
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("point", ["shard.claimed", "shard.granted", "shard.copying"] if WHOLE else ["shard.granted"])
def test_a_paused_worker_is_replaced_and_cannot_write_when_it_goes_on(crew, point):
    row, worker = pause_a_worker(crew, point)
    there = crew.there
    assert crew.settle(row) == SUCCEEDED
    # And back: what the paused one would write now, it would write into an empty place.
    time.sleep(PAUSE_S)
    back = crew.start()
    assert crew.settle(back) == SUCCEEDED
    assert crew.there == there
    since = len((crew.server(there).folder / "audit.log").read_text().splitlines())
    worker.resume()
    time.sleep(AFTERWARDS_S)
    assert writes_of(crew, there, since) == []
    crew.assert_whole()
    # It is a worker like any other again.
    assert crew.settle(crew.start()) == SUCCEEDED


@pytest.mark.timeout(900)
def test_a_paused_worker_writes_nothing_after_the_migration_was_rolled_back(crew):
    row, worker = pause_a_worker(crew, "shard.copying")
    crew.admin.cancel_migration("acme", row["id"])
    assert crew.settle(row) == CANCELED
    time.sleep(PAUSE_S)
    since = len((crew.server(crew.there).folder / "audit.log").read_text().splitlines())
    worker.resume()
    time.sleep(AFTERWARDS_S)
    assert writes_of(crew, crew.there, since) == []
    crew.assert_whole()


def test_a_worker_that_is_told_to_end_hands_its_share_over_at_once(crew):
    crew.plan_moments("shard.copying wait")
    row = crew.start()
    wait_until(lambda: crew.struck, "a shard", interval_s=0.01)
    worker = next(worker for worker in crew.workers if worker.pid == int(crew.struck.split()[1]))
    assert worker.stop() == 0
    crew.go()
    assert crew.settle(row) == SUCCEEDED
    worker.start()


def test_workers_wait_for_a_database_that_hangs_and_go_on(crew):
    processes = [worker.pid for worker in crew.workers]
    row = crew.stop_at("shard.copying")
    with crew.database.paused():
        crew.go()
        assert crew.testbed.service.wait(60) == SUPERSEDED_STATUS
    assert crew.settle(row) == SUCCEEDED
    assert [worker.pid for worker in crew.workers if worker.running] == processes


def test_two_workers_share_one_migration(crew):
    crew.customer.enrol(600)
    engine = connect(crew.database.direct_url)
    seen = set()
    row = crew.start()
    query = text("select split_part(holder, '-', 1) from shards where state = 'leased'")

    def both():
        with engine.connect() as connection:
            seen.update(connection.execute(query).scalars())
        return len(seen) == 2

    wait_until(both, "both workers to hold a shard", interval_s=0.01)
    assert crew.settle(row) == SUCCEEDED
    engine.dispose()


def test_a_write_that_was_on_its_way_when_its_worker_died_comes_to_nothing(toxiproxy):
    """It lingers in the network, and reaches the server when the migration was rolled back long ago."""
    settings = {"slots": "0", "in_flight": "1", "request_s": "50", "retry_s": "50"}
    with stage(intercepted=False, failpoints=True, **settings) as scene:
        server = scene.server("second")
        proxy = toxiproxy.proxy("network", server.port)
        targets = json.loads(scene.testbed.service.settings["host_map"])
        targets[f"{server.name}:{server.port}"] = f"127.0.0.1:{proxy.port}"
        roundabout = {"host_map": json.dumps(targets)}
        with WorkerProcess(scene.testbed.service, roundabout) as worker:
            row = scene.stop_at("shard.granted")  # logged in; the next it sends there is a write
            since = len((server.folder / "audit.log").read_text().splitlines())
            with proxy.slow_requests(40_000):
                begun = time.monotonic()
                scene.go()
                time.sleep(1)
                worker.kill()
                scene.admin.cancel_migration("acme", row["id"])
                assert scene.settle(row) == CANCELED
                assert time.monotonic() - begun < 39, "it took too long for the write to be late"

                def arrived():
                    lines = (server.folder / "audit.log").read_text().splitlines()[since:]
                    return [line for line in lines if '"operation":"create"' in line or "permission denied" in line]

                wait_until(arrived, "the late write to reach the server")
                time.sleep(0.5)
            scene.assert_whole()
        proxy.close()


# A whole service that was paused.


def test_a_service_that_was_replaced_deletes_no_key_when_it_goes_on():
    """Paused while it empties the source; meanwhile another one does so, and the keys come back."""
    with stage(intercepted=False, failpoints=True, in_flight="1") as scene:
        first = scene.testbed.service
        scene.plan_moments("clean-up.removing wait")
        row = scene.start()
        wait_until(lambda: scene.struck, "the clean-up", interval_s=0.01)
        stop_in_its_tracks(first.pid)
        scene.go()
        engine = connect(scene.database.direct_url)
        with engine.begin() as connection:
            # As after the network between them was cut: the database gives its locks to the next one.
            mine = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            connection.execute(text(f"{mine} and backend_type = 'client backend'"))
        engine.dispose()
        second = ServiceProcess({**first.settings, "master_key_file": str(first.data / "master.key")}, first.timeline)
        with second:
            scene.testbed.service, second_admin = second, Client(second.url, second.make_token("ops", "provider-admin"))
            before, scene.admin = scene.admin, second_admin
            escrow_client = Client(second.url, second.make_token("authority", "authority"))
            scene.customer.admin, scene.customer.escrow_client = second_admin, escrow_client
            assert scene.settle(row) == SUCCEEDED
            assert scene.settle(scene.start()) == SUCCEEDED
            assert scene.here == "first"
            os.kill(first.pid, signal.SIGCONT)
            assert first.wait(120) == 75  # it has lost the database
            scene.assert_whole()
            before.close()
            second_admin.close()
            escrow_client.close()
            first.close()


def test_only_who_holds_the_work_gets_a_token(crew):
    """A process that believes to lead, or to hold a shard, and does not: its token is refused before it is used."""
    service = crew.testbed.service
    settings = Settings(database_url=crew.database.direct_url, master_key_file=service.data / "master.key")
    with opened(settings) as database:
        row = Keystore(id=1, organization_id=1)
        for announce in (fencing.for_leader(database.plane, row), shards.for_holder(database.plane, row, "nobody")):
            with pytest.raises(Superseded):
                announce("a token", "a cluster", "")


def test_of_many_requests_at_once_one_migration_comes():
    with stage(intercepted=False) as scene:
        scene.customer.enrol(300)
        ids, refusals = set(), []

        def ask(destination):
            with Client(scene.testbed.service.url, scene.admin_token) as client:
                try:
                    ids.add(client.start_migration("acme", destination)["id"])
                except (InMaintenance, KeystoreError) as error:
                    refusals.append(error)

        threads = [threading.Thread(target=ask, args=("second",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 1, (ids, refusals)
        assert refusals == []
        row = scene.finish({"id": ids.pop()})
        assert scene.settle(row) == SUCCEEDED
        assert scene.customer.actions.count("Migration started") == 1
        with contextlib.suppress(KeystoreError):
            scene.admin.cancel_migration("acme", row["id"])
        assert scene.customer.active == "second"
