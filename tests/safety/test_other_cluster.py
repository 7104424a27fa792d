"""Another cluster under the same name, servers that are put back in time, and what a proof has to show."""

import httpx
import pytest
from keystore_harness import wait_until

from pulumi_keystore.errors import AnotherCluster, KeystoreError, Unsuitable


def test_another_cluster_under_the_name_is_offline_and_nothing_is_written_there(bed):
    acme = bed.customer(10, first="a", second="b")
    other = bed.testbed.rebuilt("a")
    other.admit(acme.tenancy("first"))
    with bed.testbed.lines["a"].leading_to(other.port):
        refusal = acme.refused(acme.enrol_keys, acme.some(3, "nobody"))
        assert isinstance(refusal, AnotherCluster)
        assert "accept-cluster" in refusal.hint
        health = wait_until(lambda: offline(acme), "the health check")
        assert health["reason"] == "Host unavailable"
        assert "another Vault cluster answers" in health["detail"]
        assert bed.keystore("status", acme.name).returncode == 2
        shown = page_of(bed, f"/console/organizations/{acme.name}/keystores/first")
        assert "Accept Cluster" in shown
        assert "keystore accept-cluster" not in shown
        assert isinstance(acme.refused(acme.swap, "first"), AnotherCluster)
        assert isinstance(acme.refused(acme.admin.start_migration, acme.name, "second"), AnotherCluster)
        assert acme.place("a", server=other).names() == []
    acme.enrol_keys(acme.some(3))
    acme.assert_complete("first")
    other.close()


def page_of(bed, path):
    """Return a page of the console, as an administrator sees it."""
    with httpx.Client(base_url=bed.testbed.service.url, timeout=60) as browser:
        browser.post("/console/sign-in", data={"token": bed.testbed.service.make_token("ops", "provider-admin")})
        answer = browser.get(path)
    assert answer.status_code == 200
    return answer.text


def offline(acme):
    health = acme.admin.health(acme.name, "first")
    return health if health["status"] == "Offline" else None


def test_a_server_that_was_rebuilt_on_purpose_is_accepted_after_a_proof(bed):
    acme = bed.customer(10, first="a", second="b")
    other = bed.testbed.rebuilt("b")
    other.admit(acme.tenancy("second"))
    with bed.testbed.lines["b"].leading_to(other.port):
        done = bed.keystore("accept-cluster", acme.name, "second", "--yes")
        assert done.returncode == 0, done.stderr
        acme.migrated("second")
        acme.await_no_clean_up()
        assert set(acme.place("b", server=other).stored().values()) == set(acme.keys.values())
        acme.assert_all_released()
        # It cannot be accepted where the keys are not.
        third = bed.testbed.rebuilt("b")
        third.admit(acme.tenancy("second"))
        with bed.testbed.lines["b"].leading_to(third.port):
            refusal = acme.refused(acme.admin.accept_cluster, acme.name, "second")
            assert "lacks 10 of the 10" in refusal.summary
        acme.migrated("first")
    for server in (other, third):
        server.close()
    acme.assert_complete("first")


def test_the_active_server_restored_from_a_snapshot_that_is_too_old(bed):
    acme = bed.customer(30, first="c", second="b")
    snapshot = bed.testbed.servers["c"].snapshot()
    late = acme.some(4)
    acme.enrol_keys(late)
    bed.testbed.servers["c"].restore(snapshot)
    warning = wait_until(lambda: acme.admin.health(acme.name, "first")["warning"], "the warning")
    assert "4 of 34 archive keys are missing" in warning
    shown = bed.keystore("verify", acme.name)
    assert all(user in shown.stdout for user in late)
    assert acme.enrol_keys(late)["restored"] == 4
    acme.migrated("second")
    acme.assert_complete("second", empty="first")


def test_the_destination_restored_from_a_snapshot_of_before_the_migration(bed):
    """In the moment after the decision: the source has the keys still, as long as the destination lacks them."""
    acme = bed.customer(40, first="b", second="c")
    snapshot = bed.testbed.servers["c"].snapshot()
    with acme.may_not_delete("first"):
        acme.migrated("second")
        # Each attempt of the clean-up brings back what is missing, beginning at once.
        bed.testbed.servers["c"].restore(snapshot)
    acme.await_no_clean_up()
    acme.assert_complete("second", empty="first")


def test_a_mount_that_begins_to_delete_by_itself_after_the_preflight(bed):
    acme = bed.customer(500, version=2, first="a", second="b")
    row = acme.start_and_wait_for("second", 50)
    client = bed.testbed.servers["b"].client()
    client.write_data(f"{acme.mounts['second']}/config", data={"delete_version_after": "40s"})
    ended = acme.finish(row)
    assert ended["state"] == "failed"
    assert "delete" in ended["detail"]
    acme.await_no_clean_up()
    acme.assert_complete("first", empty="second")


def test_a_mount_in_use_that_begins_to_delete_by_itself(bed):
    acme = bed.customer(5, version=2, first="a")
    client = bed.testbed.servers["a"].client()
    client.write_data(f"{acme.mounts['first']}/config", data={"delete_version_after": "5s"})
    refusal = acme.refused(acme.enrol_keys, acme.some(2, "nobody"))
    assert isinstance(refusal, Unsuitable)
    assert "delete_version_after=0s" in refusal.hint
    warning = wait_until(lambda: acme.admin.health(acme.name, "first")["warning"], "the warning")
    assert "deletes what is written after 5s" in warning
    client.write_data(f"{acme.mounts['first']}/config", data={"delete_version_after": "0s"})
    acme.enrol_keys(acme.some(2))
    acme.assert_all_released()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"token_type": "batch"}, "tokens of type 'batch', which cannot be ended"),
        ({"token_num_uses": 5}, "for 5 requests"),
        ({"token_ttl": 20, "token_max_ttl": 20}, "that live 20 s"),
    ],
)
def test_a_role_whose_tokens_cannot_be_relied_on_is_refused(bed, change, found):
    acme = bed.customer(0, first="b")
    acme.letters["second"], acme.mounts["second"], acme.versions["second"] = "a", "archive-keys", 1
    acme.admit("second")
    role = f"auth/cert/certs/{acme.tenancy('second').role_name}"
    client = bed.testbed.servers["a"].client()
    client.write_data(role, data={**client.read(role)["data"], **change})
    refusal = acme.refused(acme.register, "second")
    assert isinstance(refusal, Unsuitable), refusal
    assert found in refusal.summary
    assert "bao write auth/cert/certs/" in refusal.hint


def test_a_policy_under_which_no_token_can_be_ended_is_refused(bed):
    acme = bed.customer(0, first="b")
    acme.letters["second"], acme.mounts["second"], acme.versions["second"] = "a", "archive-keys", 1
    acme.admit("second")
    tenancy = acme.tenancy("second")
    policy = tenancy.policy(1).replace("auth/token/revoke-self", "auth/token/nothing")
    bed.testbed.servers["a"].client().sys.create_or_update_policy(tenancy.role_name, policy)
    refusal = acme.refused(acme.register, "second")
    assert isinstance(refusal, KeystoreError)
    assert "a token that was ended is still good" in refusal.summary
    assert "auth/token/revoke-self" in refusal.hint
