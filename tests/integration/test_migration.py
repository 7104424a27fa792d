"""Migrations that succeed, and those that are refused before anything moves."""

import os
from base64 import b64encode

import pytest
from keystore_harness import wait_until
from sqlalchemy import text

from pulumi_keystore.control_plane.runtime.database import connect
from pulumi_keystore.declarations.tenancy import Tenancy, key_name
from pulumi_keystore.errors import Conflict, InMaintenance, NotAllowed, NotFound, RuleViolation, Unsuitable

STARTS, SUCCEEDS, FAILED = (
    "Keystore Migration Starts",
    "Keystore Migration Succeeds",
    "Error! Keystore Migration Failed",
)


@pytest.mark.parametrize("versions", [(1, 1), (1, 2), (2, 1), (2, 2)], ids=lambda v: f"v{v[0]} to v{v[1]}")
@pytest.mark.parametrize("count", [0, 1, 250])
def test_every_key_moves_and_the_source_is_emptied(customer, count, versions):
    acme = customer(keys=count, versions=versions)
    row = acme.migrate("second")
    assert (row["ending"], row["done"], row["total"]) == ("Migration succeeded", count, count)
    assert row["clean_up_pending"] == []
    acme.assert_complete("second", empty="first")


def test_deleted_and_destroyed_versions_at_the_source_stay_and_are_told(customer):
    acme = customer(keys=5, versions=(2, 1))
    client = acme.testbed.vaults["a"].client()
    kv = client.secrets.kv.v2
    for name in ("deleted", "destroyed"):
        kv.create_or_update_secret(f"{acme.name}/{name}", {"x": "1"}, mount_point="archive-keys-v2")
    kv.delete_latest_version_of_secret(f"{acme.name}/deleted", mount_point="archive-keys-v2")
    kv.destroy_secret_versions(f"{acme.name}/destroyed", [1], mount_point="archive-keys-v2")
    assert acme.migrate("second")["ending"] == "Migration succeeded"
    acme.assert_complete("second")
    assert client.list(f"archive-keys-v2/metadata/{acme.name}")["data"]["keys"] == [
        "checkpoints/",
        "deleted",
        "destroyed",
    ]
    told = [row["detail"] for row in acme.history() if row["action"] == "Clean-up finished"]
    assert len(told) == 1
    assert "2 entries that are no archive keys" in told[0]


def test_there_and_back_again(customer):
    acme = customer(keys=50)
    assert acme.migrate("second")["state"] == "succeeded"
    acme.enrol(5)
    assert acme.migrate("first")["state"] == "succeeded"
    acme.assert_complete("first", empty="second")


def test_one_address_gets_a_mail_at_the_start_and_one_at_the_end(customer, testbed):
    acme = customer(keys=5)
    address = f"ops@{acme.name}.example.com"
    acme.migrate("second", address)

    def mine():
        return [m for m in testbed.mailbox.messages if m["To"] == address]

    wait_until(lambda: len(mine()) == 2, "two mails")
    assert [m["Subject"] for m in mine()] == [STARTS, SUCCEEDS]
    assert "are now migrating from one keystore to another" in mine()[0].get_content()
    assert "now reside at their new location" in mine()[1].get_content()
    assert len({m["Message-ID"] for m in mine()}) == 2
    assert acme.actions[-2:] == ["Migration started", "Migration succeeded"]


@pytest.mark.parametrize("mode", ["maintenance", "online"])
def test_the_first_mail_says_whether_users_can_be_created_meanwhile(customer, testbed, mode):
    acme = customer(keys=2)
    address = f"{mode}@{acme.name}.example.com"
    acme.finish(acme.admin.start_migration(acme.name, "second", address, mode))

    def first():
        return [m.get_content() for m in testbed.mailbox.messages if m["To"] == address and m["Subject"] == STARTS]

    text = wait_until(first, "the mail")[0]
    assert ("users cannot be created" in text, "Users can still be created" in text) == (
        mode != "online",
        mode == "online",
    )


def test_who_cancels_is_named_and_nothing_is_called_stalled(customer, testbed, admin_token):
    acme = customer(keys=200)
    address = f"ops@{acme.name}.example.com"
    with testbed.servers["b"].rate_limited(40):
        row = acme.start_and_wait_for("second", 1, address)
        acme.admin.cancel_migration(acme.name, row["id"])
        acme.finish(row)

    def told():
        return [m.get_content() for m in testbed.mailbox.messages if m["To"] == address and m["Subject"] == FAILED]

    text = wait_until(told, "the mail")[0]
    assert ("was canceled by ops" in text, "stalled" in text) == (True, False)
    # The command that was watching says the same; the history has the contract's words.
    done = testbed.service.run("migration", "watch", acme.name, token=admin_token, check=False)
    assert (done.returncode, done.stdout) == (1, "Migration canceled by ops\n")
    assert "Migration canceled: migration process stalled" in acme.actions
    # Copies that the server would not remove at that rate are removed later.
    wait_until(lambda: acme.stored("second") == {}, "the destination to be emptied")
    acme.assert_complete("first", empty="second")


def test_whoever_was_alerted_is_alerted_of_the_new_keystore(customer):
    acme = customer(keys=2)
    alerting = {"recipients": ["a@example.com"], "webhook": "https://hooks.example.com/x", "offline_minutes": 7}
    acme.admin.put_monitor(acme.name, "first", alerting)
    assert acme.admin.plan_migration(acme.name, "second")["carries_alerts"]
    acme.migrate("second")
    carried, before = (acme.admin.monitor(acme.name, name) for name in ("second", "first"))
    assert {**carried, "keystore": "first"} == before
    assert carried["recipients"] == ["a@example.com"]
    told = [row["detail"] for row in acme.history() if row["action"] == "Alerts carried over"]
    assert told == ["first → second: a@example.com, webhook at hooks.example.com"]
    assert "no-alerts" not in next(acme.admin.organizations(acme.name))["problems"]
    # The way back finds a monitor, and leaves it as it is.
    acme.admin.put_monitor(acme.name, "second", {"recipients": ["b@example.com"]})
    assert not acme.admin.plan_migration(acme.name, "first")["carries_alerts"]
    acme.migrate("first")
    assert acme.admin.monitor(acme.name, "first") == before


def test_where_nobody_was_alerted_nobody_is(customer):
    acme = customer(keys=1)
    assert not acme.admin.plan_migration(acme.name, "second")["carries_alerts"]
    acme.migrate("second")
    with pytest.raises(NotFound, match="has no monitor"):
        acme.admin.monitor(acme.name, "second")
    assert "Alerts carried over" not in acme.actions

    def problems():
        return next(acme.admin.organizations(acme.name))["problems"]

    acme.admin.put_monitor(acme.name, "second", {"recipients": ["a@example.com"]})
    assert "no-alerts" not in problems()
    acme.admin.delete_monitor(acme.name, "second")
    assert "no-alerts" in problems()


def test_a_second_start_with_other_options_is_refused(customer, testbed):
    acme = customer(keys=200)
    with testbed.servers["b"].rate_limited(50):
        row = acme.start_and_wait_for("second", 1, "a@example.com")
        for email, mode in ((None, "online"), ("b@example.com", "maintenance"), ("none", "maintenance")):
            with pytest.raises(InMaintenance, match="with other options: mode maintenance, and it notifies a@example"):
                acme.admin.start_migration(acme.name, "second", email, mode)
        # Who asks for less than there is joins it.
        for email in (None, "a@example.com"):
            assert acme.admin.start_migration(acme.name, "second", email)["id"] == row["id"]
    assert acme.finish(row)["state"] == "succeeded"


def test_that_no_one_is_notified_is_said_or_left_to_the_migration_that_runs(customer, testbed):
    acme = customer(keys=200)
    with testbed.servers["b"].rate_limited(50):
        row = acme.start_and_wait_for("second", 1)
        with pytest.raises(InMaintenance, match="with other options: mode maintenance, and it notifies no one"):
            acme.admin.start_migration(acme.name, "second", "a@example.com")
        for email in (None, "none"):
            assert acme.admin.start_migration(acme.name, "second", email)["id"] == row["id"]
    assert acme.finish(row)["state"] == "succeeded"


def test_the_active_keystore_as_destination_changes_nothing(customer):
    acme = customer(keys=3)
    before = acme.history()
    assert acme.admin.start_migration(acme.name, "first") is None
    assert acme.history() == before


def test_asking_again_attaches_and_another_destination_is_refused(customer):
    acme = customer(keys=100)
    elsewhere = Tenancy(acme.name, "archive-keys-v2", f"keystore-{acme.name}-v2")
    acme.testbed.admit("a", elsewhere, 2)
    third = acme.declaration("first", mount=elsewhere.mount, role=elsewhere.role)
    acme.admin.put_keystore(acme.name, "third", third)
    with acme.testbed.servers["b"].rate_limited(20):
        row = acme.start_and_wait_for("second", 1)
        assert acme.admin.start_migration(acme.name, "second")["id"] == row["id"]
        with pytest.raises(InMaintenance, match="a migration to second"):
            acme.admin.start_migration(acme.name, "third")
    assert acme.finish(row)["state"] == "succeeded"
    acme.assert_complete("second", empty="first")


def test_a_destination_that_holds_something_is_refused_before_any_write_and_left_alone(customer):
    acme = customer(keys=5)
    client = acme.testbed.vaults["b"].client()
    path = f"archive-keys/{acme.name}/{key_name(next(iter(acme.keys)), 1)}"
    client.write_data(path, data={"whose": "not ours"})
    with pytest.raises(Unsuitable, match="holds 1 entry"):
        acme.admin.start_migration(acme.name, "second")
    assert client.read(path)["data"] == {"whose": "not ours"}
    assert acme.active == "first"
    assert "Migration started" not in acme.actions


def test_one_cluster_under_two_names_is_refused(customer):
    acme = customer(keys=5, keystores=("first",))
    server = acme.testbed.vaults["a"]
    under_another_name = acme.declaration("first", address=f"https://{server.alias}:{server.port}")
    with pytest.raises(Conflict, match="'first' is at this very place already"):
        acme.admin.put_keystore(acme.name, "again", under_another_name)
    elsewhere = Tenancy(acme.name, "archive-keys-v2", f"keystore-{acme.name}-v2")
    acme.testbed.admit("a", elsewhere, 2)
    acme.admin.put_keystore(
        acme.name, "again", {**under_another_name, "mount": elsewhere.mount, "role": elsewhere.role}
    )
    for ask in (acme.admin.plan_migration, acme.admin.start_migration):
        with pytest.raises(Conflict, match="same Vault cluster"):
            ask(acme.name, "again")
    acme.assert_complete("first")


def test_legacy_is_never_a_destination(customer):
    acme = customer(keys=3, keystores=("first",))
    acme.admin.put_keystore(acme.name, "old", {"kind": "legacy"})
    with pytest.raises(RuleViolation) as caught:
        acme.admin.start_migration(acme.name, "old")
    assert caught.value.rule == "KS106"


def test_a_federal_organization_manages_no_keystores(customer, testbed, admin):
    testbed.admit("a", Tenancy("federal-1"))
    admin.put_organization("federal-1", "federal")
    with pytest.raises(NotAllowed, match="federal"):
        admin.put_keystore("federal-1", "first", testbed.declaration("a", "federal-1", "pw"))


def test_what_is_unknown_or_malformed_is_refused(customer):
    acme = customer(keys=1)
    with pytest.raises(NotFound, match="there is no organization 'nobody'"):
        acme.admin.start_migration("nobody", "second")
    with pytest.raises(NotFound, match="has no keystore 'third'"):
        acme.admin.start_migration(acme.name, "third")
    for address in ("no address", "a@b", "a@b.example\nBcc: x@y.example", "a@b.example, c@d.example"):
        with pytest.raises(RuleViolation) as caught:
            acme.admin.start_migration(acme.name, "second", address)
        assert caught.value.rule == "KS033"
    assert acme.active == "first"


def test_a_plan_says_what_would_happen(customer):
    acme = customer(keys=7)
    plan = acme.admin.plan_migration(acme.name, "second")
    assert (plan["moves"], plan["keys"], plan["unreachable"]) == (True, 7, [])
    assert plan["source"].startswith("first (https://vault-a.")
    assert not acme.admin.plan_migration(acme.name, "first")["moves"]
    with acme.testbed.vaults["b"].sealed_for_a_while():
        plan = acme.admin.plan_migration(acme.name, "second")
    assert len(plan["unreachable"]) == 1
    assert "sealed" in plan["unreachable"][0]


# Legacy keystores: rows in the control plane's database.


@pytest.fixture
def database(testbed):
    engine = connect(testbed.service.database_url)
    yield engine
    engine.dispose()


def legacy_customer(customer, count):
    acme = customer(keystores=())
    acme.admin.put_keystore(acme.name, "old", {"kind": "legacy"})
    acme.enrol(count)
    acme.register("first")
    return acme


def test_a_recovery_does_not_leave_keys_behind_in_the_providers_database(customer):
    acme = legacy_customer(customer, 3)
    with pytest.raises(Conflict, match="no Vault keystore has ever been active"):
        acme.admin.plan_recovery(acme.name)
    assert acme.active == "old"


def test_legacy_keys_move_to_a_vault_and_their_rows_are_gone(customer, database):
    acme = legacy_customer(customer, 300)
    user = next(iter(acme.keys))
    assert acme.active == "old"
    assert acme.released(user) == acme.keys[user]
    assert acme.migrate("first")["ending"] == "Migration succeeded"
    acme.assert_complete("first")
    with database.connect() as connection:
        query = text("select count(*) from legacy_keys where user_id like :users")
        assert connection.execute(query, {"users": f"%@{acme.name}"}).scalar() == 0


@pytest.mark.parametrize(
    "damage",
    [
        "update legacy_keys set key_sealed = null where user_id = :user",
        "update legacy_keys set key_sealed = substr(key_sealed, 1, 20) where user_id = :user",
        "update legacy_keys set key_sealed = key_sealed || '\\x00' where user_id = :user",
        "update legacy_keys set key_sealed = (select key_sealed from legacy_keys where user_id = :other) where user_id = :user",
        "insert into legacy_keys (organization_id, user_id, key_sealed) select organization_id, user_id, key_sealed from legacy_keys where user_id = :user",
        "delete from legacy_keys where user_id = :user",
    ],
    ids=["empty", "short", "long", "another user's", "duplicate", "missing"],
)
def test_a_damaged_legacy_row_fails_verification_and_the_rows_stay(customer, database, damage):
    acme = legacy_customer(customer, 20)
    user, other = list(acme.keys)[7:9]
    with database.begin() as connection:
        connection.execute(text(damage), {"user": user, **({"other": other} if ":other" in damage else {})})
    row = acme.migrate("first")
    assert row["ending"] == "Migration failed: destination data failed verification"
    assert acme.active == "old"
    assert acme.stored("first") == {}
    intact = next(u for u in acme.keys if u != user)
    assert acme.released(intact) == acme.keys[intact]


def test_a_user_id_may_be_anything_and_stays_in_its_own_place(customer):
    acme = customer()
    users = [
        "..",
        "../admin",
        "a/b",
        "*",
        "+",
        "%2e%2e",
        "A",
        "a",
        "é",
        "e\u0301",
        "🔑" * 20,
        "x" * 512,
        " ",
        "canary-1",
    ]
    keys = {user: os.urandom(32) for user in users}
    body = {"keys": {user: b64encode(key).decode() for user, key in keys.items()}}
    acme.escrow_client.request("POST", "organizations", acme.name, "archive-keys", body=body)
    acme.keys |= keys
    assert len(acme.stored("first")) == len(users)
    for user in users:
        assert acme.released(user) == keys[user]
    for bad in ("", "x" * 513, "a\nb", "a\0b"):
        with pytest.raises(RuleViolation) as caught:
            acme.escrow_client.request(
                "POST", "organizations", acme.name, "archive-keys", body={"keys": {bad: b64encode(bytes(32)).decode()}}
            )
        assert caught.value.rule == "KS035"
    assert acme.migrate("second")["state"] == "succeeded"
    acme.assert_complete("second", empty="first")
