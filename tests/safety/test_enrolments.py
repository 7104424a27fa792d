"""What is acknowledged stays, whatever networks, edits and repeated attempts do."""

import threading
import time

import pytest
from keystore_harness import wait_until

from pulumi_keystore.control_plane.runtime.database import connect
from pulumi_keystore.errors import Conflict, KeystoreError, Unsuitable


def copied_by_hand(acme, letter, mount):
    """Copy every key to another mount of a server as an administrator would."""
    there = acme.place(letter, mount)
    for name in acme.names("first"):
        there.put(name, acme.place("a").record(name))


def enrolling_during(acme, work):
    """Enrol users one by one while something happens; return its outcome and how many were acknowledged."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except KeystoreError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    acknowledged = 0
    while thread.is_alive():
        try:
            acme.enrol_keys(acme.some(1, f"0-during-{acknowledged}"))
            acknowledged += 1
        except KeystoreError:
            time.sleep(0.01)
    thread.join()
    return outcome[0], acknowledged


def test_keys_enrolled_while_the_active_keystore_is_edited_to_another_mount(bed):
    acme = bed.customer(400, first="a")
    before = acme.mounts["first"], acme.roles.get("first", "")
    acme.settle_elsewhere("first", "a", "m2")
    role = acme.roles["first"]
    acme.mounts["first"], acme.roles["first"] = before
    copied_by_hand(acme, "a", "m2")
    outcome, acknowledged = enrolling_during(acme, lambda: acme.swap("first", mount="m2", role=role))
    assert acknowledged
    assert isinstance(outcome, Conflict | Unsuitable), outcome
    assert "not at the new place" in outcome.summary or "lacks" in outcome.summary
    acme.assert_complete("first")
    acme.assert_all_released()


def test_an_edit_to_another_mount_that_holds_every_key_is_taken_when_no_one_enrols(bed):
    acme = bed.customer(30, first="a")
    before = acme.mounts["first"], acme.roles.get("first", "")
    acme.settle_elsewhere("first", "a", "m3")
    moved = acme.mounts["first"], acme.roles["first"]
    acme.mounts["first"], acme.roles["first"] = before
    copied_by_hand(acme, "a", "m3")
    acme.swap("first", mount=moved[0], role=moved[1])
    acme.mounts["first"], acme.roles["first"] = moved
    acme.enrol_keys(acme.some(3))
    assert set(acme.place("a", "m3").stored().values()) == set(acme.keys.values())
    acme.assert_all_released()
    edited = next(row["detail"] for row in acme.history() if row["action"] == "Keystore edited")
    assert "mount archive-keys" in edited
    assert f"mount m3, role {moved[1]}" in edited


def test_keys_enrolled_while_the_address_is_edited_to_a_clone_of_the_server(bed):
    """A snapshot keeps its cluster id; the old server still runs, and enrolments go there until the edit."""
    acme = bed.customer(400, first="a")
    clone = bed.testbed.clone("a", bed.testbed.servers["a"].snapshot())
    address = f"https://{clone.name}:{clone.port}"
    assert clone.client().sys.read_health_status(method="GET")["cluster_id"] == cluster_id(bed.testbed.servers["a"])
    bed.testbed.service.learn(f"{clone.name}:{clone.port}", clone.port)
    outcome, acknowledged = enrolling_during(acme, lambda: acme.swap("first", address=address))
    assert acknowledged
    assert isinstance(outcome, Conflict | Unsuitable), outcome
    acme.assert_complete("first")
    acme.assert_all_released()


def cluster_id(server):
    return server.client().sys.read_health_status(method="GET")["cluster_id"]


def test_packets_of_an_enrolment_that_failed_come_late_and_strike_no_acknowledged_key(bed):
    """Two outages in a row; the client repeats; what was sent in the second one arrives three seconds late."""
    acme = bed.customer(0, first="a")
    keys, line = acme.some(600, "k"), bed.testbed.lines["a"]
    first = threading.Thread(target=lambda: acme.refused(acme.enrol_keys, dict(keys)))
    first.start()
    wait_until(lambda: len(acme.names("first")) > 200, "some writes", interval_s=0.005)
    with line.outage(late_s=0):
        time.sleep(4)
    wait_until(lambda: len(acme.names("first")) > 0, "the network")
    with line.outage(late_s=3):
        first.join(60)
    acme.keys.clear()
    wait_until(lambda: accepted(acme, keys), "the repeat to be accepted", interval_s=0.2)
    line.await_quiet()
    time.sleep(0.5)
    assert set(acme.place("a").stored().values()) == set(keys.values())
    acme.assert_complete("first")


def accepted(acme, keys):
    try:
        acme.enrol_keys(keys)
    except KeystoreError:
        return False
    return True


def test_an_enrolment_deletes_nothing(bed):
    """No request to delete an archive key is in the server's audit log, whatever an enrolment met."""
    acme = bed.customer(5, first="a")
    with bed.testbed.lines["a"].outage():
        acme.refused(acme.enrol_keys, acme.some(50))
    acme.keys = {user: key for user, key in acme.keys.items() if not user.startswith("late")}
    acme.enrol_keys(acme.some(50, "again"))
    lines = bed.testbed.servers["a"].audit_log.read_text().splitlines()
    deleted = [line for line in lines if '"operation":"delete"' in line and f"archive-keys/{acme.name}/" in line]
    assert [line for line in deleted if "/canary-" not in line and "/checkpoints/" not in line] == []


def test_a_missing_key_is_named_and_comes_back_when_its_device_enrols_it_again(bed):
    acme = bed.customer(21, first="a", second="b")
    user = f"user-3@{acme.name}"
    names = {key: name for name, key in acme.place("a").stored().items()}
    acme.place("a").remove(names[acme.keys[user]])
    shown = bed.keystore("verify", acme.name)
    assert shown.returncode == 2
    assert f"1 missing:\n  {user}" in shown.stdout
    warning = wait_until(lambda: acme.admin.health(acme.name, "first")["warning"], "the warning")
    assert "1 of 21 archive keys are missing" in warning
    # Certificate, enrolments of others and looking go on; a migration says what it misses.
    acme.swap("first")
    acme.enrol_keys(acme.some(1))
    failed = acme.migrate("second")
    assert failed["ending"] == "Migration failed: destination data failed verification"
    with pytest.raises(KeystoreError, match="keystore verify"):
        acme.released(user)
    assert isinstance(acme.refused(acme.enrol_keys, {user: b"x" * 32}), Conflict)
    assert acme.enrol_keys({user: acme.keys[user]}) == {"enrolled": 0, "restored": 1, "given": 1}
    assert bed.keystore("verify", acme.name).returncode == 0
    acme.migrated("second")
    acme.assert_complete("second")


def test_keys_that_are_lost_are_given_up_by_name_and_the_others_move(bed):
    acme = bed.customer(12, first="a", second="b")
    lost = [f"user-{n}@{acme.name}" for n in (2, 5)]
    names = {key: name for name, key in acme.place("a").stored().items()}
    for user in lost:
        acme.place("a").remove(names[acme.keys[user]])
    assert acme.migrate("second")["state"] == "failed"
    assert acme.refused(acme.admin.give_up_keys, acme.name, ["nobody"], "lost").status == 404
    assert bed.keystore("key", "give-up", acme.name, *lost, "--reason", "old snapshot", "--yes").returncode == 0
    row = acme.migrated("second")
    assert row["receipt"]["keys"] == 10
    assert row["receipt"]["given_up"] == 2
    mine = {user: acme.keys.pop(user) for user in lost}
    acme.assert_complete("second")
    # One device has its key still; the other comes with a new one.
    acme.enrol_keys({lost[0]: mine[lost[0]]})
    acme.enrol_keys({lost[1]: b"n" * 32})
    acme.assert_all_released()
    assert bed.keystore("verify", acme.name).returncode == 0


def test_enrolments_are_remembered_at_the_keystore_within_a_moment(bed):
    acme = bed.customer(7, first="a")
    wait_until(lambda: acme.remembers("a", 7), "the checkpoint")
    acme.enrol_keys(acme.some(2))
    wait_until(lambda: acme.remembers("a", 9), "the next checkpoint")
    folder = f"archive-keys/{acme.name}/checkpoints"
    # The earlier one goes a moment after the next one has come.
    client = bed.testbed.servers["a"].client()
    wait_until(lambda: len(client.list(folder)["data"]["keys"]) == 1, "the earlier checkpoint to be removed")


def test_tokens_of_enrolments_are_written_down_and_ended(bed):
    """A service that is killed leaves tokens that can write; the next one that works there ends them."""
    acme = bed.customer(5, first="a", second="b")
    bed.testbed.service.restart()
    engine = connect(bed.testbed.service.database_url)
    query = f"select count(*) from token_journal join organizations o on o.id = organization_id where o.name = '{acme.name}'"

    def written_down():
        with engine.connect() as connection:
            return connection.exec_driver_sql(query).scalar()

    assert written_down() >= 1
    acme.migrated("second")
    acme.migrated("first")
    acme.await_no_clean_up()
    bed.testbed.service.stop()
    bed.testbed.service.start()
    engine.dispose()
    acme.assert_complete("first", empty="second")
