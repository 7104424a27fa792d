"""Stalls, clocks that jump, operators who cancel, several organizations at a time; and the drills that peers fail."""

import os
import socket
import subprocess
import time

import psycopg
import pytest
from keystore_harness import wait_until
from keystore_harness.service import ServiceProcess

from pulumi_keystore.control_plane.runtime.database import connect, url_of
from pulumi_keystore.control_plane.runtime.leadership import SUPERSEDED_STATUS
from pulumi_keystore.errors import AccessDenied, Conflict, Unsuitable
from tests.torture.stage import stage

SUCCEEDED = "Migration succeeded"
DESTINATION = "Migration failed: destination not reachable"
VERIFICATION = "Migration failed: destination data failed verification"
CANCELED = "Migration canceled: migration process stalled"


# Clocks.


@pytest.mark.parametrize("jump_s", [86_400, -86_400], ids=["a day ahead", "a day back"])
def test_a_wall_clock_that_jumps_stalls_nothing_and_loses_no_worker(jump_s):
    """The service is shown another time by a stand-in for its clock: the machine's own belongs to everybody."""
    with stage(intercepted=False, failpoints=True, stall_s="5", lease_s="2") as scene:
        row = scene.stop_at("shard.copying")
        (scene.control / "clock").write_text(str(jump_s))
        scene.go()
        assert scene.settle(row) == SUCCEEDED
        ended = scene.admin.migration("acme", row["id"])["ended_at"]
        assert (ended > row["started_at"]) == (jump_s > 0)  # it did jump
        assert "lost worker" not in scene.testbed.service.log.read_text()


def test_a_clean_up_is_tried_again_though_the_clock_was_put_back():
    with stage(intercepted=False, failpoints=True) as scene:
        row = scene.stop_at("decide.done")
        place = scene.place(scene.here)
        with place.access_removed():
            scene.go()
            wait_until(lambda: "Clean-up pending" in scene.customer.actions, "a clean-up that fails")
            (scene.control / "clock").write_text("-86400")
            time.sleep(0.5)
        assert scene.settle(row) == SUCCEEDED


# A database that says nothing.


def test_a_database_that_hangs_ends_the_service_and_the_next_one_goes_on(scene):
    row = scene.stop_at("decide.undecided")
    with scene.database.paused():
        scene.go()
        assert scene.testbed.service.wait(60) == SUPERSEDED_STATUS
    assert "is silent; stopping" in scene.testbed.service.log.read_text()
    assert scene.settle(row) == SUCCEEDED


def test_a_workflow_that_a_replaced_service_took_with_it_goes_on(scene):
    """As where that took it in the moment before it found out: whoever leads finds it in nobody's hands."""
    row = scene.stop_at("copy.planned")
    scene.testbed.service.kill()
    scene.clear_moments()
    with psycopg.connect(scene.database.direct_url) as connection:
        taken = (
            "UPDATE dbos.workflow_status SET executor_id = 'replaced' WHERE workflow_uuid = %s AND status = 'PENDING'"
        )
        assert connection.execute(taken, [row["id"]]).rowcount == 1
    scene.testbed.service.start()
    assert scene.settle(row) == SUCCEEDED
    assert "is run by no process" in scene.testbed.service.log.read_text()


@pytest.mark.parametrize(("given", "limit_ms"), [("", 20_000), ("&tcp_user_timeout=7000", 7000)])
def test_the_system_gives_up_a_connection_whose_other_side_is_gone(scene, given, limit_ms):
    database = connect(scene.database.url + given)
    with psycopg.connect(url_of(database)) as connection, socket.socket(fileno=os.dup(connection.fileno())) as own:
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == limit_ms
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        keepalive = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [own.getsockopt(socket.IPPROTO_TCP, option) for option in keepalive] == [5, 3, 5]
    database.dispose()


# Operators.


@pytest.mark.parametrize(
    "moment", ["preflight.done", "copy.planned", "shard.copying", "verify.planned", "decide.begun"]
)
def test_an_operator_cancels(scene, moment):
    row = scene.stop_at(moment)
    environment = {"token": scene.admin_token}
    scene.admin.cancel_migration("acme", row["id"])
    scene.go()
    done = scene.testbed.service.run("migration", "cancel", "acme", row["id"], check=False, **environment)
    assert scene.settle(row) == CANCELED
    assert done.returncode == 0 or "has ended" in done.stderr
    ended = scene.admin.migration("acme", row["id"])
    assert (ended["state"], ended["detail"], ended["cancel_by"]) == ("canceled", "canceled by ops", "ops")
    with pytest.raises(Conflict, match="has ended"):
        scene.admin.cancel_migration("acme", row["id"])


def test_what_is_decided_cannot_be_canceled(scene):
    row = scene.stop_at("decide.done")
    with pytest.raises(Conflict, match="has ended: Migration succeeded"):
        scene.admin.cancel_migration("acme", row["id"])
    scene.go()
    assert scene.settle(row) == SUCCEEDED


def test_all_workers_die_and_it_stalls():
    with stage(intercepted=False, slots="0", stall_s="2") as scene:
        row = scene.start()
        ended = scene.finish(row)
        assert (ended["ending"], ended["detail"]) == (CANCELED, "no archive key moved for 2 s")
        assert scene.settle(row) == CANCELED


# Several organizations.


def test_a_small_organization_does_not_wait_for_a_large_one():
    with stage(intercepted=False, slots="1", shard_size="100", retry_s="10", request_s="10") as scene:
        scene.customer.enrol(1200)
        small = type(scene.customer)("small", scene.testbed, scene.admin, scene.customer.escrow_client)
        scene.admin.put_organization("small")
        for keystore in ("first", "second"):
            small.admit(keystore)
            small.register(keystore)
        small.enrol(30)
        large = scene.start()
        wait_until(lambda: scene.admin.migration("acme", large["id"])["done"] > 0, "the large one to be under way")
        assert small.migrate("second")["ending"] == SUCCEEDED
        assert scene.admin.migration("acme", large["id"])["state"] == "running"
        small.assert_complete("second", empty="first")
        assert scene.settle(large) == SUCCEEDED


def test_an_organization_whose_server_hangs_does_not_hold_up_another():
    with stage(intercepted=False, failpoints=True, slots="2", retry_s="20", request_s="10") as scene:
        other = type(scene.customer)("other", scene.testbed, scene.admin, scene.customer.escrow_client)
        scene.admin.put_organization("other")
        other.letters = {"first": "b", "second": "a"}
        for keystore in ("first", "second"):
            other.admit(keystore)
            other.register(keystore)
        other.enrol(30)
        row = scene.stop_at("shard.copying")  # its worker stands still: as good as a server that never answers
        assert other.migrate("second")["ending"] == SUCCEEDED
        scene.go()
        assert scene.settle(row) == SUCCEEDED


# What peers get wrong.


def test_every_write_denied_is_a_failure_and_says_so(scene):
    """Two well-known tools end with status 0 here."""
    place = scene.place(scene.there)
    with place.access_removed(), pytest.raises((AccessDenied, Unsuitable)):
        scene.admin.start_migration("acme", scene.there)
    row = scene.stop_at("copy.begun")
    with place.access_removed():
        scene.go()
        watched = scene.testbed.service.run(
            "migration", "watch", "acme", row["id"], check=False, token=scene.admin_token
        )
        assert watched.returncode == 1
        assert DESTINATION in watched.stdout
        ended = scene.finish(row)
        assert "may not" in ended["detail"]
    assert scene.settle(row) == DESTINATION


def test_another_value_at_the_destination_is_never_written_over(scene):
    """A well-known tool overwrites it."""
    place = scene.place(scene.there)
    name = scene.place(scene.here).names()[0]
    place.put(name, {"whose": "not ours"})
    with pytest.raises(Unsuitable, match="holds 1 entry"):
        scene.admin.start_migration("acme", scene.there)
    assert place.names() == [name]  # not even a canary
    assert place.record(name) == {"whose": "not ours"}
    place.remove(name)
    scene.assert_whole()


def test_nothing_is_written_to_a_destination_that_is_refused(scene):
    place = scene.place(scene.there)
    place.put("somebodys", {"whose": "not ours"})
    log = scene.server(scene.there).folder / "audit.log"
    since = len(log.read_text().splitlines())
    with pytest.raises(Unsuitable):
        scene.admin.start_migration("acme", scene.there)
    new = [line for line in log.read_text().splitlines()[since:] if '"type":"request"' in line]
    keys = [line for line in new if '"path":"archive-keys/acme/' in line]
    assert keys
    # What it remembers of decisions is read, and nothing else.
    assert all('"operation":"list"' in line or "/checkpoints/" in line for line in keys)
    assert not any('"operation":"create"' in line or '"operation":"delete"' in line for line in keys)
    place.remove("somebodys")


@pytest.mark.parametrize("cut", ["source", "destination"])
def test_a_server_that_is_gone_in_the_middle_leaves_no_copies_behind(scene, cut):
    """All tools leave copies behind here."""
    row = scene.stop_at("shard.copying")
    server = scene.server(scene.here if cut == "source" else scene.there)
    with server.killed():
        scene.go()
        ended = scene.finish(row)["ending"]
    assert ended == (DESTINATION if cut == "destination" else "Migration failed: source not reachable")
    assert scene.settle(row) == ended


def test_custom_metadata_at_the_source_is_told_and_the_keys_move():
    with stage(intercepted=False) as scene:
        acme = type(scene.customer)("noted", scene.testbed, scene.admin, scene.customer.escrow_client)
        acme.versions = {"first": 2, "second": 2}
        scene.admin.put_organization("noted")
        for keystore in ("first", "second"):
            acme.admit(keystore)
            acme.register(keystore)
        acme.enrol(12)
        client = scene.testbed.vaults["a"].client()
        for name in acme.stored("first"):  # in two shards
            client.write_data(
                f"archive-keys-v2/metadata/noted/{name}", data={"custom_metadata": {"department": "sales"}}
            )
        assert acme.migrate("second")["ending"] == SUCCEEDED
        acme.assert_complete("second", empty="first")
        assert "12 keys had custom metadata, which is not moved" in acme.history()[-1]["detail"]


def test_one_server_as_both_ends_is_refused_whatever_it_is_called(scene):
    server = scene.server(scene.here)
    declared = scene.customer.declaration(scene.here, address=f"https://{server.alias}:{server.port}")
    with pytest.raises(Conflict, match="is at this very place already"):
        scene.admin.put_keystore("acme", "alias", declared)
    scene.assert_whole()


def test_a_worker_without_a_database_or_of_another_version_says_so_in_one_line(scene, tmp_path):
    service: ServiceProcess = scene.testbed.service
    none = subprocess.run(
        [*service.command, "worker"], env={**os.environ, "KEYSTORE_DATABASE_URL": "", "KEYSTORE_DATA": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert none.returncode == 1
    assert none.stderr.splitlines()[0] == "error: no database is named"
    lacking = service.run("worker", "--master-key-file", str(tmp_path / "no.key"), check=False)
    assert lacking.returncode == 1
    assert "error: the master key file" in lacking.stderr
    assert not (tmp_path / "no.key").exists()
