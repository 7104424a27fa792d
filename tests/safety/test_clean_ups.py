"""A clean-up is pending, and people, names and servers change meanwhile: what is in use is never deleted."""

import pytest
from keystore_harness import wait_until

from pulumi_keystore.errors import AccessDenied, Conflict, RecoveryNeeded
from tests.safety.bed import MOUNT


@pytest.fixture
def waiting(bed):
    """An organization at `second` (b), whose clean-up of `first` (a) is pending."""
    acme = bed.customer(60, first="a", second="b")
    with acme.may_not_delete("first"):
        acme.migrated("second")
        assert [row["side"] for row in acme.pending()] == ["source"]
        yield acme


def await_attempts(acme, further):
    """Wait until the pending clean-up was tried that often again."""
    wanted = acme.pending()[0]["attempts"] + further
    wait_until(lambda: acme.pending()[0]["attempts"] >= wanted, "further attempts")


def allow_deletion(acme):
    """Give `first` its rights back, for attempts that begin now: one under way has seen an earlier state."""
    await_attempts(acme, 2)
    server, tenancy = acme.testbed.servers["a"], acme.tenancy("first")
    server.client().sys.create_or_update_policy(tenancy.role_name, tenancy.policy(1))


def finish(acme):
    """Give `first` its rights back, and wait for the clean-up."""
    allow_deletion(acme)
    acme.await_no_clean_up()


def test_the_emptied_keystore_edited_to_the_mount_of_the_active_one_is_refused(waiting):
    waiting.settle_elsewhere("third", "a", "m2")
    waiting.register("third")
    waiting.migrated("third")
    role = waiting.tenancy("third").role_name
    refusal = waiting.refused(waiting.swap, "first", mount="m2", role=role)
    assert isinstance(refusal, Conflict)
    assert "clean-up list" in refusal.hint
    finish(waiting)
    waiting.assert_complete("third")
    assert waiting.names("first") == []


def test_the_active_keystore_edited_to_the_place_of_the_emptied_one_is_refused(waiting):
    role = waiting.other_role("a")
    refusal = waiting.refused(waiting.swap, "second", address=waiting.testbed.servers["a"].address, role=role)
    assert isinstance(refusal, Conflict)
    assert "'first' is at this very place already" in refusal.summary
    finish(waiting)
    waiting.assert_complete("second", empty="first")


def test_a_second_registration_of_the_emptied_place_is_refused_however_it_is_spelled(waiting):
    server, role = waiting.testbed.servers["a"], waiting.other_role("a")
    for address in (server.address, server.address + "/", f"https://{server.alias}:{server.port}"):
        third = waiting.declaration("first", address=address, role=role)
        refusal = waiting.refused(waiting.admin.put_keystore, waiting.name, "third", third)
        assert "'first' is at this very place already" in refusal.summary
    finish(waiting)
    waiting.assert_complete("second", empty="first")


def test_the_active_keystore_edited_to_the_destination_of_a_canceled_migration_is_refused(bed):
    acme = bed.customer(500, first="a", second="b")
    row = acme.start_and_wait_for("second", 100)
    with acme.testbed.lines["a"].outage():
        assert acme.finish(row)["state"] == "failed"
        # Nobody can see whether the source holds them, so they stay.
        assert [clean_up["side"] for clean_up in acme.pending()] == ["destination"]
        address, role = acme.testbed.servers["b"].address, acme.other_role("b")
        refusal = acme.refused(acme.swap, "first", address=address, role=role)
        assert "'second' is at this very place already" in refusal.summary
        assert len(acme.names("second")) >= 100
    acme.await_no_clean_up()
    acme.assert_complete("first", empty="second")


def test_the_name_of_the_emptied_server_leads_to_the_active_one_and_nothing_is_deleted(waiting):
    testbed = waiting.testbed
    server, tenancy = testbed.servers["b"], waiting.tenancy("first")
    server.client().sys.create_or_update_policy(tenancy.role_name, tenancy.policy(1))
    certificate = testbed.ca.issue_server(testbed.servers["a"].name, server.name, "127.0.0.1")
    with server.showing(certificate), testbed.lines["a"].leading_to(server.port):
        number = waiting.pending()[0]["id"]
        refusal = waiting.refused(waiting.admin.retry_clean_up, waiting.name, number)
        assert "another Vault cluster answers under this name" in refusal.summary
        assert len(waiting.names("second")) == 60
    finish(waiting)
    waiting.assert_complete("second", empty="first")


def test_a_keystore_is_not_moved_to_an_empty_mount_while_its_keys_lie_elsewhere(waiting):
    role = f"keystore-{waiting.name}-empty"
    before = waiting.mounts["first"], waiting.roles.get("first", "")
    waiting.settle_elsewhere("first", "a", "empty")
    refusal = waiting.refused(waiting.swap, "first", mount="empty", role=f"{role}-a")
    assert isinstance(refusal, Conflict)
    waiting.mounts["first"], waiting.roles["first"] = before
    assert len(waiting.names("first")) == 60
    finish(waiting)
    assert waiting.names("first") == []


def test_a_key_that_the_active_keystore_has_lost_is_brought_back_before_the_old_copy_goes(waiting):
    place = waiting.place("b")
    lost = place.names()[7]
    place.remove(lost)
    finish(waiting)
    waiting.assert_complete("second", empty="first")
    told = [row["detail"] for row in waiting.history() if row["action"] == "Keys restored"]
    assert len(told) == 1
    assert "1 key that it lacked written there" in told[0]


def test_a_key_that_differs_at_the_active_keystore_is_kept_on_both_sides_and_told(waiting):
    name = waiting.place("b").names()[3]
    right = waiting.place("b").record(name)
    with waiting.place("b").flipped_bit(name):
        allow_deletion(waiting)
        wait_until(lambda: waiting.names("first") == [name], "all others to be removed")
        wait_until(lambda: "1 key not deleted" in (waiting.pending()[0]["detail"] or ""), "the reason")
        assert waiting.place("a").record(name)["archive_key"] == right["archive_key"]
    waiting.await_no_clean_up()
    waiting.assert_complete("second", empty="first")


def test_a_clean_up_of_a_server_that_is_gone_for_good_is_given_up(bed, waiting):
    acme = waiting
    number = acme.pending()[0]["id"]
    listed = bed.keystore("clean-up", "list", acme.name)
    assert f"{MOUNT}/{acme.name}/ on cluster" in listed.stdout
    assert "may not delete archive keys" in listed.stdout
    assert bed.keystore("clean-up", "retry", acme.name, str(number)).returncode == 1
    assert "clean-up abandon" not in bed.keystore("clean-up", "abandon", acme.name, str(number)).stdout
    refusal = acme.refused(acme.admin.delete_keystore, acme.name, "first")
    assert f"clean-up {number}" in refusal.summary
    done = bed.keystore("clean-up", "abandon", acme.name, str(number), "--reason", "the server burned down")
    assert done.returncode == 0, done.stderr
    assert acme.pending() == []
    acme.admin.delete_keystore(acme.name, "first")
    assert "the server burned down" in str(acme.history())
    assert len(acme.names("first")) == 60
    acme.assert_complete("second")


def test_old_copies_at_the_destination_of_a_server_that_was_put_back_in_time_do_not_block_the_way_back(bed):
    acme = bed.customer(40, first="c", second="b")
    snapshot = bed.testbed.servers["c"].snapshot()
    acme.migrated("second")
    acme.await_no_clean_up()
    late = acme.some(3)
    acme.enrol_keys(late)
    bed.testbed.servers["c"].restore(snapshot)
    assert len(acme.names("first")) == 40
    acme.migrated("first")
    acme.await_no_clean_up()
    acme.assert_complete("first", empty="second")
    assert "Old copies removed" in acme.actions


def test_copies_of_an_enrolment_that_was_never_acknowledged_go_with_the_others(bed):
    acme = bed.customer(20, first="a", second="b")
    ghost, key = f"ghost@{acme.name}", b"g" * 32
    acme.place("a").add(ghost, key)
    acme.migrated("second")
    acme.await_no_clean_up()
    assert acme.names("first") == []
    assert key in acme.place("b").stored().values()
    # Its device comes again with the key that it has.
    assert acme.enrol_keys({ghost: key})["enrolled"] == 1
    acme.migrated("first")
    acme.await_no_clean_up()
    acme.assert_complete("first", empty="second")


def test_a_destroyed_key_is_not_brought_back_by_a_clean_up(bed):
    acme = bed.customer(10, first="a", second="b")
    user = next(iter(acme.keys))
    with acme.may_not_delete("first"):
        acme.migrated("second")
        acme.admin.destroy_key(acme.name, user, "asked for by the user")
    acme.await_no_clean_up()
    del acme.keys[user]
    acme.assert_complete("second", empty="first")
    assert [row["detail"] for row in acme.history() if row["action"] == "Archive key destroyed"] == [
        f"{user}; reason: asked for by the user"
    ]


def test_keys_that_are_destroyed_while_a_clean_up_works_stay_destroyed(waiting):
    for user in list(waiting.keys)[:12]:
        waiting.admin.destroy_key(waiting.name, user, "asked for by the user")
        del waiting.keys[user]
    finish(waiting)
    waiting.assert_complete("second", empty="first")
    assert "Keys restored" not in waiting.actions


def test_an_organization_can_be_deleted_after_its_last_key_was_destroyed(bed):
    acme = bed.customer(1, first="a")
    user = next(iter(acme.keys))
    assert bed.keystore("key", "destroy", acme.name, user, "--reason", "left", "--yes").returncode == 0
    assert bed.keystore("key", "destroy", acme.name, user, "--reason", "left", "--yes").returncode == 1
    assert acme.names("first") == []
    acme.admin.delete_keystore(acme.name, "first")
    acme.admin.delete_organization(acme.name)


def test_a_suspended_organization_has_no_clean_ups(waiting):
    place = waiting.place("b")
    epoch = max(place.vault.client().list(f"{MOUNT}/{waiting.name}/checkpoints")["data"]["keys"])
    later = f"{int(epoch) + 5:012d}"
    record = place.vault.client().read(f"{MOUNT}/{waiting.name}/checkpoints/{epoch}")["data"]
    path = f"{MOUNT}/{waiting.name}/checkpoints/{later}"
    place.vault.client().write_data(path, data={**record, "epoch": int(later), "nonce": "another"})
    wait_until(lambda: waiting.admin.organization(waiting.name)["suspended"], "the suspension")
    allow_deletion(waiting)
    await_attempts(waiting, 2)
    assert isinstance(waiting.refused(waiting.enrol_keys, waiting.some(1, "nobody")), RecoveryNeeded)
    assert isinstance(waiting.refused(waiting.admin.start_migration, waiting.name, "first"), RecoveryNeeded)
    assert isinstance(waiting.refused(waiting.swap, "second"), RecoveryNeeded)
    assert isinstance(waiting.refused(waiting.admin.delete_keystore, waiting.name, "first"), RecoveryNeeded)
    assert len(waiting.names("first")) == len(waiting.names("second")) == 60
    waiting.assert_all_released()
    plan = waiting.admin.plan_recovery(waiting.name)
    waiting.admin.recover(waiting.name, plan["code"])
    waiting.await_no_clean_up()
    waiting.assert_complete("second", empty="first")


def test_what_a_proof_left_that_might_not_delete_goes_with_the_keys(bed):
    acme = bed.customer(5, first="a", second="b")
    with acme.may_not_delete("first"):
        assert isinstance(acme.refused(acme.swap, "first"), AccessDenied)
        assert any(name.startswith("canary-") for name in acme.names("first"))
    acme.migrated("second")
    acme.await_no_clean_up()
    acme.assert_complete("second", empty="first")
    assert acme.names("first") == []
