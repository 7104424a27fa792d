"""Registering a keystore and changing it: the proof and the validated swap, on real servers over mutual TLS."""

import os
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import hvac
import pytest
from keystore_harness import CertificateAuthority

from pulumi_keystore.client import Client
from pulumi_keystore.declarations.tenancy import key_name
from pulumi_keystore.errors import (
    AccessDenied,
    Conflict,
    HostUnavailable,
    InMaintenance,
    NotFound,
    RuleViolation,
    UnableToAuthenticate,
    Unsuitable,
)
from tests.conftest import PASSWORD


def test_the_first_keystore_becomes_active_and_nothing_of_the_proof_is_left(customer):
    acme = customer(keystores=())
    shown = acme.register("first")
    assert shown["active"]
    assert shown["kv_version"] == 1
    assert acme.stored("first") == {}
    assert not acme.register("second")["active"]


@pytest.mark.parametrize("versions", [(1, 1), (2, 2)], ids=["KV v1", "KV v2"])
def test_keys_are_written_once_and_read_back_equal(customer, versions):
    acme = customer(keys=5, versions=versions)
    acme.assert_complete("first")
    user = next(iter(acme.keys))
    path = ("organizations", acme.name, "archive-keys")
    same = {"keys": {user: b64encode(acme.keys[user]).decode()}}
    assert acme.escrow_client.request("POST", *path, body=same)["enrolled"] == 0
    other = {"keys": {user: b64encode(os.urandom(32)).decode()}}
    with pytest.raises(Conflict, match="another archive key"):
        acme.escrow_client.request("POST", *path, body=other)
    acme.assert_complete("first")


def test_registering_twice_is_safe_and_something_else_needs_adopt(customer):
    acme = customer(keystores=())
    declared = acme.declaration("first")
    once = acme.admin.put_keystore(acme.name, "first", declared)
    again = acme.admin.put_keystore(acme.name, "first", declared)
    assert once["revision"] == again["revision"] == 1
    with pytest.raises(Conflict, match="another certificate"):
        acme.register("first")
    adopted = acme.admin.put_keystore(acme.name, "first", acme.declaration("first"), adopt=True)
    assert adopted["revision"] == 2


def test_of_two_registrations_at_once_one_wins(customer, testbed, admin_token):
    acme = customer(keystores=())
    declared = [acme.declaration("first") for _ in range(6)]

    def register(declaration):
        with Client(testbed.service.url, admin_token) as client:
            client.put_organization(f"{acme.name}-new")
            try:
                return client.put_keystore(acme.name, "first", declaration)["certificate_fingerprint"]
            except Conflict:
                return None

    with ThreadPoolExecutor(6) as pool:
        won = [fingerprint for fingerprint in pool.map(register, declared) if fingerprint]
    assert won == [acme.admin.keystore(acme.name, "first")["certificate_fingerprint"]]


def test_a_proof_removes_what_an_earlier_one_left_and_nothing_else(customer, testbed):
    acme = customer(keystores=())
    place = testbed.vaults["a"].admit(acme.name)
    for name, origin in (("canary-old", "proof 1700000000 ab"), ("canary-of-a-migration", "5f0e"), ("mine", "proof 1")):
        place.put(name, {"origin": origin})
    acme.register("first")
    assert place.names() == ["canary-of-a-migration", "mine"]


def test_a_new_certificate_is_swapped_in_after_proof(customer):
    acme = customer(keys=20)
    before = acme.admin.keystore(acme.name, "first")
    after = acme.admin.swap_keystore(acme.name, "first", acme.declaration("first"))
    assert after["certificate_fingerprint"] != before["certificate_fingerprint"]
    assert "Keystore edited" in acme.actions
    acme.assert_complete("first")


def test_a_certificate_that_may_not_log_in_is_refused_and_the_old_pair_stays(customer):
    acme = customer(keys=20)
    before = acme.admin.keystore(acme.name, "first")
    stranger = b64encode(acme.testbed.ca.issue("stranger").pkcs12(PASSWORD)).decode()
    with pytest.raises(UnableToAuthenticate, match="refuses this client certificate"):
        acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", certificate=stranger))
    assert acme.admin.keystore(acme.name, "first") == before
    acme.assert_complete("first")


def test_the_same_certificate_exported_again_with_its_chain_is_used_and_brings_the_keystore_back(customer):
    acme = customer(keys=2)
    root, role = CertificateAuthority("root"), f"auth/cert/certs/{acme.tenancy('first').role_name}"
    below = CertificateAuthority("below", root)
    issued = below.issue(acme.name)
    alone, whole = (b64encode(issued.pkcs12(PASSWORD, chain=chain)).decode() for chain in ((), (below.certificate,)))
    vault = acme.testbed.vaults["a"].client()
    vault.write_data(role, data={**vault.read(role)["data"], "certificate": below.pem})
    before = acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", certificate=alone))
    vault.write_data(role, data={**vault.read(role)["data"], "certificate": root.pem})
    with pytest.raises(UnableToAuthenticate, match="refuses this client certificate"):
        acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", certificate=alone))
    after = acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", certificate=whole))
    assert after["revision"] == before["revision"] + 1
    acme.assert_complete("first")


def test_a_vault_that_lacks_the_keys_is_refused_with_migrate_do_not_edit(customer):
    acme = customer(keys=20, keystores=("first",))
    before = acme.admin.keystore(acme.name, "first")
    elsewhere = acme.declaration("first", address=acme.testbed.vaults["b"].address)
    with pytest.raises(Unsuitable, match="lacks 20 of the 20") as caught:
        acme.admin.swap_keystore(acme.name, "first", elsewhere)
    assert "migrate, do not edit" in str(caught.value)
    assert acme.admin.keystore(acme.name, "first") == before
    acme.assert_complete("first", empty="second")


def test_a_vault_that_holds_the_same_keys_is_a_swap(customer):
    acme = customer(keys=20, keystores=("first",))
    old, new = (acme.testbed.vaults[letter].client() for letter in "ab")
    for name in acme.stored("first"):
        path = f"archive-keys/{acme.name}/{name}"
        new.write_data(path, data=old.read(path)["data"])
    acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", address=acme.testbed.vaults["b"].address))
    acme.letters["first"] = "b"
    acme.assert_complete("first")


def test_one_missing_or_changed_key_is_enough_to_refuse_a_swap(customer):
    acme = customer(keys=10)
    user = next(iter(acme.keys))
    client = acme.testbed.vaults["a"].client()
    path = f"archive-keys/{acme.name}/{key_name(user, 1)}"
    kept = client.read(path)["data"]
    client.write_data(path, data={**kept, "archive_key": b64encode(os.urandom(32)).decode()})
    server = acme.testbed.vaults["a"]
    elsewhere = f"https://{server.alias}:{server.port}"
    with pytest.raises(Unsuitable, match="lacks 1 of the 10"):
        acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", address=elsewhere))
    # What is missing where it is now is no reason to go on with a certificate that ends.
    rotated = acme.admin.swap_keystore(acme.name, "first", acme.declaration("first"))
    assert "lacks 1 of the 10" in str(rotated["warnings"])
    client.write_data(path, data=kept)
    assert acme.admin.swap_keystore(acme.name, "first", acme.declaration("first"))["warnings"] == []


def test_the_same_server_under_another_name_is_a_swap_of_the_address(customer):
    acme = customer(keys=10)
    server = acme.testbed.vaults["a"]
    moved = acme.admin.swap_keystore(
        acme.name, "first", acme.declaration("first", address=f"https://{server.alias}:{server.port}")
    )
    assert server.alias in moved["address"]
    acme.assert_complete("first")


def test_a_server_with_a_certificate_for_another_name_is_unavailable(customer, testbed):
    acme = customer(keys=3)
    wrong = {f"wrong-name.example.com:{testbed.vaults['a'].port}": f"127.0.0.1:{testbed.vaults['a'].port}"}
    assert not set(wrong) & set(testbed.vaults["a"].host_map)
    # The name is not in the host map either, so that it does not even resolve: no looser rule helps it.
    with pytest.raises(HostUnavailable):
        acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", address=f"https://{next(iter(wrong))}"))
    untrusted = acme.declaration("first", server_ca=None)
    with pytest.raises(HostUnavailable, match="of an unknown CA"):
        acme.admin.swap_keystore(acme.name, "first", untrusted)
    acme.assert_complete("first")


def test_a_policy_that_can_overwrite_is_refused(customer):
    acme = customer(keystores=())
    tenancy = acme.tenancy("first")
    client = acme.testbed.vaults["a"].client()
    client.sys.create_or_update_policy(tenancy.role_name, tenancy.policy(1).replace('"create"', '"create", "update"'))
    with pytest.raises(Unsuitable, match="may overwrite"):
        acme.register("first")


@pytest.mark.parametrize(
    ("removed", "message"),
    [('"create", ', "may not create"), ('"read", ', "may not read"), (', "delete"', "may not delete")],
)
def test_a_policy_that_lacks_something_is_refused_with_the_fix(customer, removed, message):
    acme = customer(keystores=())
    tenancy = acme.tenancy("first")
    weaker = tenancy.policy(1).replace(removed, "")
    acme.testbed.vaults["a"].client().sys.create_or_update_policy(tenancy.role_name, weaker)
    with pytest.raises(AccessDenied, match=message) as caught:
        acme.register("first")
    assert caught.value.hint


def test_a_mount_that_is_missing_or_of_another_type_is_refused_with_the_fix(customer):
    acme = customer(keystores=())
    with pytest.raises(Unsuitable, match="the mount 'nowhere' does not exist"):
        acme.register("first", mount="nowhere")
    client = acme.testbed.vaults["a"].client()
    if "transit/" not in client.sys.list_mounted_secrets_engines()["data"]:
        client.sys.enable_secrets_engine("transit")
    tenancy = acme.tenancy("first")
    policy = tenancy.policy(1) + 'path "transit/*" { capabilities = ["read", "list"] }'
    client.sys.create_or_update_policy(tenancy.role_name, policy)
    with pytest.raises(Unsuitable, match="of type 'transit'"):
        acme.register("first", mount="transit")


def test_a_version_2_mount_that_deletes_by_itself_is_refused(customer):
    acme = customer(keystores=(), versions=(2, 1))
    client = acme.testbed.vaults["a"].client()
    client.write_data("archive-keys-v2/config", data={"delete_version_after": "1h"})
    try:
        with pytest.raises(Unsuitable, match="delete_version_after=0s"):
            acme.register("first")
    finally:
        client.write_data("archive-keys-v2/config", data={"delete_version_after": "0s"})
    assert acme.register("first")["kv_version"] == 2


def test_one_organization_cannot_reach_another_ones_keys(customer):
    acme, other = customer(keys=3), customer(keys=3)
    server = acme.testbed.vaults["a"]
    client = server.admit(acme.tenancy("first")).credentials().login()
    assert client.list(f"archive-keys/{acme.name}")
    for path in (f"archive-keys/{other.name}", "archive-keys", "sys/mounts"):
        with pytest.raises(hvac.exceptions.Forbidden):
            client.list(path) if "sys" not in path else client.read(path)
    with pytest.raises(hvac.exceptions.VaultError):
        client.write_data("auth/cert/login", data={"name": other.tenancy("first").role_name})
    looked_up = server.client().auth.token.lookup(client.token)["data"]
    assert looked_up["policies"] == [acme.tenancy("first").role_name]


def test_an_active_keystore_with_keys_is_not_deleted(customer):
    acme = customer(keys=3)
    with pytest.raises(Conflict, match="active and holds 3 archive keys") as caught:
        acme.admin.delete_keystore(acme.name, "first")
    assert "migrate them" in str(caught.value)
    acme.admin.delete_keystore(acme.name, "second")
    with pytest.raises(Conflict, match="holds 3 archive keys"):
        acme.admin.delete_organization(acme.name)
    with pytest.raises(NotFound):
        acme.admin.keystore(acme.name, "second")


def test_what_breaks_a_rule_changes_nothing(customer):
    acme = customer(keys=3)
    before = acme.admin.keystore(acme.name, "first")
    for change, rule in (
        ({"address": "https://127.0.0.1:8200"}, "KS004"),
        ({"address": "https://vault.example.com:8200/v1"}, "KS003"),
        ({"certificate_password": "wrong"}, "KS011"),
        ({"certificate": b64encode(b"no").decode()}, "KS010"),
        ({"mount": "../sys"}, "KS034"),
        ({"role": "a/b"}, "KS034"),
        ({"namespace": "root"}, "KS044"),
        ({"server_ca": "x"}, "KS025"),
        ({"kind": "cloud"}, "KS030"),
    ):
        with pytest.raises(RuleViolation) as caught:
            acme.admin.swap_keystore(acme.name, "first", acme.declaration("first", **change))
        assert caught.value.rule == rule
        assert caught.value.prop in change
    assert acme.admin.keystore(acme.name, "first") == before


def test_ambient_settings_and_proxies_have_no_effect(customer, testbed, monkeypatch):
    acme = customer(keys=3)
    elsewhere = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "VAULT_ADDR": "https://evil",
                 "VAULT_TOKEN": "evil", "REQUESTS_CA_BUNDLE": "/nonexistent", "SSL_CERT_FILE": "/nonexistent",
                 "SSLKEYLOGFILE": str(testbed.folder / "tls-secrets")}  # fmt: skip
    before = type(testbed.service).environment
    monkeypatch.setattr(type(testbed.service), "environment", property(lambda self: {**before.fget(self), **elsewhere}))
    # What is read when the libraries are loaded is to be found by who starts anew.
    monkeypatch.setattr(testbed.service.program, "forked", False)
    testbed.service.restart()
    acme.admin.swap_keystore(acme.name, "first", acme.declaration("first"))
    acme.assert_complete("first")
    assert not (testbed.folder / "tls-secrets").exists()
    monkeypatch.undo()
    testbed.service.restart()


def test_writes_of_keys_wait_for_the_end_of_a_migration_and_reads_do_not(customer):
    acme = customer(keys=100)
    with acme.testbed.servers["b"].rate_limited(20):
        row = acme.start_and_wait_for("second", 1)
        with pytest.raises(InMaintenance):
            acme.enrol(1)
        with pytest.raises(InMaintenance):
            acme.admin.swap_keystore(acme.name, "first", acme.declaration("first"))
        for user in list(acme.keys)[:5]:
            assert acme.released(user) == acme.keys[user]
        assert acme.admin.migration(acme.name, row["id"])["state"] == "running"
    assert acme.finish(row)["ending"] == "Migration succeeded"
    acme.enrol(1)
    acme.assert_complete("second", empty="first")
