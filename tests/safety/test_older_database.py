"""The database that comes back is older than the keystores, or is lost: nothing is deleted, and everything comes back."""

import json
from email import message_from_bytes

import pytest
from keystore_harness import wait_until

from pulumi_keystore.errors import RecoveryNeeded


def recovered(bed, acme):
    """Recover as an administrator does who has read the page."""
    shown = bed.keystore("recover", acme.name, "--yes")
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def suspended(acme):
    return wait_until(lambda: acme.admin.organization(acme.name)["suspended"], "the suspension", interval_s=0.2)


@pytest.fixture
def dump(tmp_path):
    return tmp_path / "database.dump"


@pytest.mark.parametrize("phase", ["preflight", "copy", "verify"])
def test_a_dump_made_during_a_migration_comes_back_after_it(bed, dump, phase):
    acme = bed.customer(400 if phase != "preflight" else 40, first="a", second="b")
    row = acme.admin.start_migration(acme.name, "second")
    if phase != "preflight":
        moved = "done" if phase == "copy" else "verified"
        wait_until(lambda: acme.admin.migration(acme.name, row["id"])[moved] > 100, phase, interval_s=0.01)
    bed.testbed.service.dump_database(dump)
    assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.await_no_clean_up()
    acme.enrol_keys(acme.some(3))
    bed.testbed.service.restore_database(dump)
    wait_until(lambda: acme.admin.migration(acme.name, row["id"])["phase"] == "ended", "the old migration's end")
    assert len(acme.names("second")) == len(acme.keys)
    suspended(acme)
    recovered(bed, acme)
    acme.await_no_clean_up()
    acme.assert_complete("second", empty="first")
    acme.assert_all_released()


def test_a_dump_made_before_a_migration_comes_back_after_it(bed, dump):
    acme = bed.customer(40, first="a", second="b")
    acme.admin.put_monitor(acme.name, "first", {"recipients": [f"{acme.name}@example.com"]})
    bed.testbed.service.dump_database(dump)
    acme.enrol_keys(acme.some(5))
    acme.migrated("second")
    acme.await_no_clean_up()
    bed.testbed.service.restore_database(dump)
    # The first change that is asked for finds out, if the health check has not before.
    assert isinstance(acme.refused(acme.enrol_keys, acme.some(1, "nobody")), RecoveryNeeded)
    reason = suspended(acme)
    assert "remembers decision" in reason
    assert acme.names("first") == []
    assert len(acme.names("second")) == 45
    # Said in status, history, metrics and mail.
    assert "suspended" in bed.keystore("status", acme.name).stdout
    assert "Organization suspended" in acme.actions
    metrics = bed.testbed.service.url.replace("/v1", "") + "/metrics?per=organization"
    shown = bed.admin._http.get(metrics).text
    assert f'keystore_suspended{{organization="{acme.name}"}} 1.0' in shown
    wait_until(lambda: f"{acme.name}@example.com" in bed.testbed.mailbox.recipients, "the mail")
    assert "Error: Keystore recovery needed" in bed.testbed.mailbox.subjects
    plan = json.loads(bed.keystore("recover", acme.name, "--format", "json", "--yes").stdout)
    assert plan["keystore"] == "second"
    assert plan["added"]["count"] == 5
    acme.assert_complete("second", empty="first")
    acme.enrol_keys(acme.some(2, "later"))
    acme.migrated("first")
    acme.assert_complete("first")


def test_a_dump_with_a_pending_clean_up_comes_back_when_its_keystore_is_the_active_one_again(bed, dump):
    acme = bed.customer(60, first="a", second="b")
    acme.migrated("second")
    acme.await_no_clean_up()
    with acme.may_not_delete("second"):
        acme.migrated("first")
        bed.testbed.service.dump_database(dump)
    acme.await_no_clean_up()
    acme.migrated("second")
    acme.await_no_clean_up()
    bed.testbed.service.restore_database(dump)
    suspended(acme)
    assert len(acme.names("second")) == 60
    recovered(bed, acme)
    acme.await_no_clean_up()
    acme.assert_complete("second", empty="first")


def test_users_enrolled_since_the_dump_are_not_enrolled_with_another_key(bed, dump):
    acme = bed.customer(20, first="a", second="b")
    bed.testbed.service.dump_database(dump)
    late = acme.some(4)
    acme.enrol_keys(late)
    wait_until(lambda: acme.remembers("a", 24), "the checkpoint")
    bed.testbed.service.restore_database(dump)
    kept = dict(acme.keys)
    acme.refused(acme.enrol_keys, acme.some(4))
    assert acme.keys == kept
    assert set(acme.place("a").stored().values()) == set(kept.values())
    suspended(acme)
    assert "late-0" in recovered(bed, acme)
    acme.assert_complete("first")
    acme.assert_all_released()


def test_a_database_that_is_lost_is_made_anew_from_the_keystores(bed):
    acme = bed.customer(40, first="a", second="b")
    acme.migrated("second")
    acme.await_no_clean_up()
    acme.enrol_keys(acme.some(2))
    lose_everything(bed)
    bed.admin.put_organization(acme.name)
    acme.admin, acme.escrow_client = bed.admin, bed.escrow_client
    acme.register("first")
    warned = acme.register("second")["warnings"]
    assert "keystore recover" in str(warned)
    assert isinstance(acme.refused(acme.enrol_keys, acme.some(1, "nobody")), RecoveryNeeded)
    recovered(bed, acme)
    acme.assert_complete("second", empty="first")
    acme.assert_all_released()
    assert bed.keystore("verify", acme.name).returncode == 0


def test_a_path_that_holds_keys_is_registered_with_a_word_and_nothing_is_written_over(bed):
    acme = bed.customer(0, first="a")
    user, key = f"old@{acme.name}", b"k" * 32
    acme.admin.delete_keystore(acme.name, "first")
    acme.place("a").add(user, key)
    answer = acme.register("first")
    assert "1 entry found in" in str(answer["warnings"])
    assert isinstance(acme.refused(acme.enrol_keys, {user: b"n" * 32}), RecoveryNeeded)
    assert list(acme.place("a").stored().values()) == [key]
    recovered(bed, acme)
    acme.keys[user] = key
    acme.assert_complete("first")


def test_a_key_at_the_keystore_that_the_database_does_not_know_is_never_replaced(bed):
    acme = bed.customer(3, first="a")
    user, key = f"old@{acme.name}", b"k" * 32
    acme.place("a").add(user, key)
    refusal = acme.refused(acme.enrol_keys, {user: b"n" * 32})
    assert "keystore recover" in refusal.hint
    assert key in acme.place("a").stored().values()
    found = bed.keystore("verify", acme.name)
    assert found.returncode == 2
    assert f"1 surplus:\n  {user}" in found.stdout
    assert acme.enrol_keys({user: key})["enrolled"] == 1
    acme.assert_complete("first")


def test_of_two_services_with_copies_of_one_database_the_second_stops(bed, dump):
    """A staging copy of production, started by mistake: it finds the other's decisions at the keystore."""
    acme = bed.customer(10, first="a", second="b")
    bed.testbed.service.dump_database(dump)
    acme.enrol_keys(acme.some(3, "production"))
    wait_until(lambda: acme.remembers("a", 13), "the checkpoint")
    bed.testbed.service.restore_database(dump)  # the staging copy, from here on
    refusal = acme.refused(acme.enrol_keys, acme.some(3, "staging"))
    assert isinstance(refusal, RecoveryNeeded)
    assert len(acme.names("first")) == 13
    recovered(bed, acme)
    acme.assert_complete("first")


def lose_everything(bed):
    """The machine of the service burns down: database and master key are gone; the Vault servers are not."""
    bed.close()
    bed.testbed.service.lose_everything()
    bed.__init__(bed.testbed)


def test_mails_hold_no_key(bed):
    for message in bed.testbed.mailbox.messages:
        assert "archive_key" not in str(message_from_bytes(message.as_bytes()))


def test_nothing_is_recovered_while_a_keystore_that_may_hold_the_keys_cannot_be_read(bed, dump):
    """Its name leads to another cluster, say: an empty keystore would become the active one."""
    acme = bed.customer(5, first="a", second="b")
    bed.testbed.service.dump_database(dump)
    acme.enrol_keys(acme.some(3))
    wait_until(lambda: acme.remembers("a", 8), "the checkpoint")
    bed.testbed.service.restore_database(dump)
    suspended(acme)
    other = bed.testbed.rebuilt("a")
    other.admit(acme.tenancy("first"))
    with bed.testbed.lines["a"].leading_to(other.port):
        assert acme.admin.plan_recovery(acme.name)["unread"] == ["first"]
        refused = bed.keystore("recover", acme.name, "--yes")
        assert refused.returncode == 1
        assert "the keystore 'first' cannot be read" in refused.stderr
        assert f"keystore recover {acme.name} --without first" in refused.stderr
        assert acme.active == "first"
        # What a person leaves out by name is not asked.
        assert acme.admin.plan_recovery(acme.name, ["first"])["unread"] == []
        assert acme.admin.plan_recovery(acme.name, ["first"])["keystore"] == "second"
        assert bed.keystore("recover", acme.name, "--without", "frist", "--yes").returncode == 1
    other.close()
    recovered(bed, acme)
    acme.assert_complete("first", empty="second")
    acme.assert_all_released()


def test_a_server_that_is_gone_for_good_is_left_out_of_a_recovery_by_its_name(bed, dump):
    acme = bed.customer(5, first="a", second="b")
    acme.migrated("second")
    acme.await_no_clean_up()
    bed.testbed.service.dump_database(dump)
    acme.enrol_keys(acme.some(3))
    wait_until(lambda: acme.remembers("b", 8), "the checkpoint")
    bed.testbed.service.restore_database(dump)
    suspended(acme)
    other = bed.testbed.rebuilt("a")
    with bed.testbed.lines["a"].leading_to(other.port):
        assert bed.keystore("recover", acme.name, "--yes").returncode == 1
        assert bed.keystore("recover", acme.name, "--without", "first", "--yes").returncode == 0
        acme.assert_all_released()
    other.close()
    assert acme.active == "second"
