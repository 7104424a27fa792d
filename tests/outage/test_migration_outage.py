"""Migrations that something breaks: each ends as the contract says, and the right side is complete."""

import contextlib
import json
import os
import signal
import time
from base64 import b64encode
from dataclasses import replace

import hvac
import pytest
from keystore_harness import wait_until

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.migration.copy import Copier, Entry, VaultSource, check_inventory
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate, check_server_ca, decode_file
from pulumi_keystore.declarations.tenancy import key_name
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import ArchiveKey
from pulumi_keystore.vault.requests import Endpoint
from pulumi_keystore.vault.resolver import HostMap, Resolver
from pulumi_keystore.vault.transport import Transport
from tests.conftest import PASSWORD

SOURCE = "Migration failed: source not reachable"
DESTINATION = "Migration failed: destination not reachable"
VERIFICATION = "Migration failed: destination data failed verification"
STALLED = "Migration canceled: migration process stalled"
MANY = 400  # four shards: there is a moment at which some have been copied


def test_source_down_at_the_start(customer, testbed):
    acme = customer(keys=20)
    with testbed.vaults["a"].killed():
        row = acme.migrate("second")
    assert (row["ending"], row["done"]) == (SOURCE, 0)
    acme.assert_complete("first", empty="second")


def test_destination_down_at_the_start(customer, testbed):
    acme = customer(keys=20)
    with testbed.vaults["b"].killed():
        row = acme.migrate("second", "ops@example.com")
    assert row["ending"] == DESTINATION
    acme.assert_complete("first", empty="second")
    assert acme.actions.count(DESTINATION) == 1
    testbed.mailbox.wait_for("Error! Keystore Migration Failed")


def test_destination_sealed_in_the_middle_then_migrated_again(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    with testbed.vaults["b"].sealed_for_a_while():
        ended = acme.finish(row)
        assert ended["ending"] == DESTINATION
        assert "sealed" in ended["detail"]
        assert ended["clean_up_pending"] == ["destination"]
        assert acme.active == "first"
    wait_until(lambda: acme.admin.migration(acme.name, row["id"])["clean_up_pending"] == [], "the clean-up")
    acme.assert_complete("first", empty="second")
    assert "Clean-up finished" in acme.actions
    assert acme.migrate("second")["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")


def test_destination_killed_in_the_middle_and_migrated_again_at_once(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    with testbed.vaults["b"].killed():
        assert acme.finish(row)["ending"] == DESTINATION
    # What the first attempt left is removed by the next one's preflight, if not before.
    assert acme.migrate("second")["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")


def test_source_sealed_in_the_middle(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    with testbed.vaults["a"].sealed_for_a_while():
        ended = acme.finish(row)
        assert ended["ending"] == SOURCE
        # Nothing is deleted as long as nobody can see that the source holds it.
        assert ended["clean_up_pending"] == ["destination"]
        assert acme.stored("second") != {}
    wait_until(lambda: acme.admin.migration(acme.name, row["id"])["clean_up_pending"] == [], "the clean-up")
    acme.assert_complete("first", empty="second")


def test_a_short_outage_is_ridden_out(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    with testbed.vaults["b"].paused():
        time.sleep(1)
    assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")


def test_service_killed_in_the_middle_goes_on_and_succeeds(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 150)
    testbed.service.restart()
    ended = acme.finish(row)
    assert (ended["ending"], ended["done"]) == ("Migration succeeded", MANY)
    acme.assert_complete("second", empty="first")
    assert acme.actions.count("Migration succeeded") == 1


def test_service_stopped_in_the_middle_ends_at_once_and_goes_on_later(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    started = time.monotonic()
    with testbed.service.stopped():
        assert time.monotonic() - started < 25  # later it would be killed
    assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")


def test_service_killed_again_and_again(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    for pause in (0.0, 0.3, 0.6):
        testbed.service.restart()
        time.sleep(pause)
    assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")


def test_service_killed_while_the_destination_is_sealed_rolls_back(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    with testbed.vaults["b"].sealed_for_a_while():
        testbed.service.restart()
        assert acme.finish(row)["ending"] == DESTINATION
    wait_until(lambda: acme.admin.migration(acme.name, row["id"])["clean_up_pending"] == [], "the clean-up")
    acme.assert_complete("first", empty="second")


@contextlib.contextmanager
def service_settings(testbed, **changes):
    """Run the service with other settings for a while."""
    before = dict(testbed.service.settings)
    testbed.service.settings.update({name: str(value) for name, value in changes.items()})
    testbed.service.restart()
    try:
        yield
    finally:
        testbed.service.settings.clear()
        testbed.service.settings.update(before)
        testbed.service.restart()


def test_nothing_moves_for_the_stall_window(customer, testbed):
    acme = customer(keys=MANY)
    with service_settings(testbed, stall_s=3, retry_s=600):
        row = acme.start_and_wait_for("second", 100)
        with testbed.vaults["b"].paused():
            wait_until(lambda: acme.admin.migration(acme.name, row["id"])["phase"] != "copy", "the stall")
        ended = acme.finish(row)
        assert (ended["ending"], ended["state"]) == (STALLED, "canceled")
        wait_until(lambda: acme.admin.migration(acme.name, row["id"])["clean_up_pending"] == [], "the clean-up")
        acme.assert_complete("first", empty="second")


@contextlib.contextmanager
def proxied(testbed, letter, toxiproxy):
    """Lead the service to a server by way of Toxiproxy, for a while."""
    server = testbed.vaults[letter]
    proxy = toxiproxy.proxy(server.name, server.port, timeline=testbed.timeline)
    host_map = json.loads(testbed.service.settings["host_map"])
    host_map[f"{server.name}:{server.port}"] = f"127.0.0.1:{proxy.port}"
    with service_settings(testbed, host_map=json.dumps(host_map), retry_s=20):
        yield proxy
    proxy.close()


@pytest.mark.parametrize("letter", ["a", "b"], ids=["source", "destination"])
def test_connections_reset_again_and_again_lose_and_double_nothing(customer, testbed, toxiproxy, letter):
    acme = customer(keys=MANY)
    with proxied(testbed, letter, toxiproxy) as proxy:
        row = acme.start_and_wait_for("second", 100)
        cuts = 0
        while acme.admin.migration(acme.name, row["id"])["state"] == "running" and cuts < 15:
            proxy.reset()
            cuts += 1
            time.sleep(0.15)
        assert cuts > 3
        assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")


def test_writes_that_are_applied_and_whose_answers_are_lost_leave_one_copy(customer, testbed, toxiproxy):
    acme = customer(keys=MANY)
    with proxied(testbed, "b", toxiproxy) as proxy:
        row = acme.start_and_wait_for("second", 100)
        before = len(acme.stored("second"))
        with proxy.losing_answers():
            # Requests go through, so copies appear whose writer does not know of them.
            wait_until(lambda: len(acme.stored("second")) > before, "a write that is not acknowledged")
        assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")


def test_a_source_key_that_was_changed_fails_verification(customer, testbed):
    acme = customer(keys=30)
    user = list(acme.keys)[20]
    path = f"archive-keys/{acme.name}/{key_name(user, 1)}"
    client = testbed.vaults["a"].client()
    kept = client.read(path)["data"]
    client.write_data(path, data={**kept, "archive_key": b64encode(bytes(32)).decode()})
    assert acme.migrate("second")["ending"] == VERIFICATION
    client.delete(path)
    assert acme.migrate("second")["ending"] == VERIFICATION
    client.write_data(path, data=kept)
    acme.assert_complete("first", empty="second")


def test_a_destination_that_asks_for_fewer_requests_is_served_slowly_and_to_the_end(customer, testbed):
    acme = customer(keys=600)
    client = testbed.vaults["b"].client()
    client.write_data("sys/quotas/rate-limit/slow", data={"rate": 300, "path": "archive-keys/"})
    try:
        assert acme.migrate("second")["ending"] == "Migration succeeded"
    finally:
        client.delete("sys/quotas/rate-limit/slow")
    acme.assert_complete("second", empty="first")


def test_role_deleted_at_the_destination_in_the_middle(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    server, tenancy = testbed.vaults["b"], acme.tenancy("second")
    server.client().sys.create_or_update_policy(tenancy.role_name, 'path "nothing/" { capabilities = ["read"] }')
    assert acme.finish(row)["ending"] == DESTINATION
    acme.admit("second")
    wait_until(lambda: acme.admin.migration(acme.name, row["id"])["clean_up_pending"] == [], "the clean-up")
    acme.assert_complete("first", empty="second")


def test_every_token_revoked_in_the_middle(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    for letter in "ab":
        testbed.vaults[letter].client().sys.revoke_prefix("auth/cert/login")
    assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")


def test_database_killed_in_the_middle(customer, testbed):
    acme = customer(keys=MANY)
    row = acme.start_and_wait_for("second", 100)
    postmaster = int((testbed.service.data / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    assert testbed.service.wait(60) != 0
    testbed.service.start()
    assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.assert_complete("second", empty="first")
    assert acme.actions.count("Migration succeeded") == 1


def test_source_that_forbids_deletion_after_the_decision(customer, testbed):
    acme = customer(keys=20)
    server, tenancy = testbed.vaults["a"], acme.tenancy("first")
    server.client().sys.create_or_update_policy(tenancy.role_name, tenancy.policy(1).replace(', "delete"', ""))
    row = acme.migrate("second")
    assert (row["ending"], row["clean_up_pending"]) == ("Migration succeeded", ["source"])
    pending = next(entry for entry in acme.history() if entry["action"] == "Clean-up pending")
    assert "may not delete" in pending["detail"]
    acme.assert_complete("second")
    acme.admit("first")
    wait_until(lambda: acme.admin.migration(acme.name, row["id"])["clean_up_pending"] == [], "the clean-up")
    acme.assert_complete("second", empty="first")


def test_a_second_service_on_the_same_database_does_not_start(testbed, tmp_path):
    other = testbed.service.run("serve", "--port", "0", "--database-url", testbed.service.database_url, check=False)
    assert other.returncode == 1
    assert "another control plane is running on this database" in other.stderr
    assert "Traceback" not in other.stderr


# The copy itself, against destinations that somebody tampers with.


def keystore_of(acme, name: str, **options) -> VaultKeystore:
    declared, server = acme.declaration(name), acme.testbed.vaults[acme.letters[name]]
    certificate = ClientCertificate.load(decode_file(declared["certificate"]), PASSWORD, now_utc())
    resolver = Resolver(HostMap(server.host_map))
    endpoint = Endpoint(
        KeystoreAddress.parse(server.address), certificate, check_server_ca(declared["server_ca"]), resolver
    )
    return VaultKeystore(endpoint, acme.tenancy(name), retry_for_s=2, kv_version=1, **options)


def no_digest(organization: str, user: str, key: bytes) -> bytes:
    return b"same"


def copy_with(acme, at_destination: dict | None) -> list[Entry]:
    """Copy all keys after something was put in the place of one of them."""
    entries = [Entry(user, 1, b"same") for user in acme.keys]
    if at_destination is not None:
        path = f"archive-keys/{acme.name}/{entries[3].name}"
        acme.testbed.vaults["b"].client().write_data(path, data=at_destination)
    copier = Copier(VaultSource(keystore_of(acme, "first")), keystore_of(acme, "second"), "this", no_digest)

    def move(entry):
        yield from copier.copy(entry)
        yield from copier.verify(entry)
        return entry

    with Transport() as transport:
        return list(transport.run(map(move, entries), 16))


def test_a_copy_can_be_repeated_and_leaves_one_copy(customer):
    acme = customer(keys=30)
    assert len(copy_with(acme, None)) == 30
    before = acme.stored("second")
    assert len(copy_with(acme, None)) == 30
    assert acme.stored("second") == before == acme.stored("first")


def test_a_token_is_renewed_in_time_and_replaced_when_it_has_ended(customer):
    acme = customer(keys=1)
    now = 0.0
    vault = keystore_of(acme, "first", clock=lambda: now)
    texts = []
    with Transport() as transport:
        for moment in (0, 2000, 3000, 10_000):
            now = moment
            assert len(transport.run_one(vault.names())) == 1
            assert vault._token is not None
            texts.append((vault._token.text, vault._token.issued))
            assert vault._token.text not in repr(vault._token)
        transport.run_one(vault.revoke())
    first, kept, renewed, replaced = texts
    assert first == kept
    assert renewed == (first[0], 3000)
    assert replaced[0] != first[0]
    with pytest.raises(hvac.exceptions.Forbidden):
        acme.testbed.vaults["a"].client().auth.token.lookup(replaced[0])


@pytest.mark.parametrize("what", ["flipped bit", "wrong length", "wrong owner", "another origin", "not a record"])
def test_a_tampered_destination_is_never_taken_for_a_copy(customer, what):
    acme = customer(keys=10)
    user = list(acme.keys)[3]
    key = acme.keys[user]
    right = ArchiveKey(acme.name, user, 1, key, "this")
    tampered = {
        "flipped bit": replace(right, key=bytes([key[0] ^ 1]) + key[1:]).to_body(),
        "wrong length": replace(right, key=key[:31]).to_body(),
        "wrong owner": replace(right, user="somebody else").to_body(),
        "another origin": replace(right, origin="that").to_body(),
        "not a record": {"hello": "world"},
    }[what]
    with pytest.raises(MigrationFailed) as caught:
        copy_with(acme, tampered)
    assert caught.value.ending is Ending.VERIFICATION_FAILED


def test_missing_and_surplus_keys_fail_the_inventory(customer):
    acme = customer(keys=30)
    vault = keystore_of(acme, "first")
    with Transport() as transport:
        check_inventory(transport, vault, 30)
        for expected in (29, 31, 0):
            with pytest.raises(MigrationFailed) as caught:
                check_inventory(transport, vault, expected)
            assert caught.value.ending is Ending.VERIFICATION_FAILED
