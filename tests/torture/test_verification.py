"""Whatever happens to the copies before the decision is found, and what others wrote is left alone."""

import json
import os
from base64 import b64decode, b64encode

import pytest
from keystore_harness import Testbed, wait_until

from pulumi_keystore.client import Client
from tests.conftest import SETTINGS, Customer
from tests.torture.stage import stage

VERIFICATION = "Migration failed: destination data failed verification"


def changed(record, **changes):
    return {**record, **changes}


def flipped(record):
    key = b64decode(record["archive_key"])
    return changed(record, archive_key=b64encode(bytes([key[0] ^ 1]) + key[1:]).decode())


def flip(place, names):
    place.put(names[7], flipped(place.record(names[7])))


def truncate(place, names):
    key = b64decode(place.record(names[3])["archive_key"])
    place.put(names[3], changed(place.record(names[3]), archive_key=b64encode(key[:31]).decode()))


def swap_keys(place, names):
    one, other = place.record(names[0]), place.record(names[24])
    place.put(names[0], changed(one, archive_key=other["archive_key"]))
    place.put(names[24], changed(other, archive_key=one["archive_key"]))


def swap_records(place, names):
    one, other = place.record(names[0]), place.record(names[24])
    place.put(names[0], other)
    place.put(names[24], one)


def lose(place, names):
    place.remove(names[12])


def write_over(place, names):
    place.put(names[5], changed(place.record(names[5]), archive_key=b64encode(os.urandom(32)).decode()))


def rewrite_the_same_key(place, names):
    # The right key, and yet somebody else writes there: what else does he write?
    place.put(names[5], changed(place.record(names[5]), origin="somebody else"))


def garbage(place, names):
    place.put(names[5], {"hello": "world"})


@pytest.mark.parametrize("moment", ["copy.recorded", "verify.fenced", "verify.planned"])
@pytest.mark.parametrize(
    "tamper",
    [flip, truncate, swap_keys, swap_records, lose, write_over, rewrite_the_same_key, garbage],
    ids=lambda tamper: tamper.__name__.replace("_", " "),
)
def test_a_copy_is_tampered_with(scene, tamper, moment):
    row = scene.stop_at(moment)
    place = scene.place(scene.there)
    names = place.names()
    assert len(names) == 25
    tamper(place, names)
    scene.go()
    assert scene.finish_cleanly(row)["ending"] == VERIFICATION
    # What was ours there is gone; what somebody else wrote is not ours to remove.
    for name in place.names():
        assert place.record(name).get("origin") != row["id"]
        place.remove(name)
    assert scene.settle(row) == VERIFICATION


@pytest.mark.parametrize("moment", ["copy.recorded", "verify.done"])
def test_somebody_adds_a_key_at_the_destination(scene, moment):
    row = scene.stop_at(moment)
    place = scene.place(scene.there)
    added = place.add("nobody@example.com")
    before = place.record(added)
    scene.go()
    ended = scene.finish_cleanly(row)
    assert ended["ending"] == VERIFICATION
    assert "1 entry too many at the destination: not of this migration" in ended["detail"]
    assert place.names() == [added]
    assert place.record(added) == before
    place.remove(added)
    scene.settle(row)


def test_a_key_is_gone_after_it_was_read_back(scene):
    row = scene.stop_at("verify.done")
    place = scene.place(scene.there)
    place.remove(place.names()[20])
    scene.go()
    ended = scene.finish(row)
    assert (ended["ending"], ended["detail"]) == (VERIFICATION, "1 key missing at the destination")
    scene.settle(row)


def test_somebody_else_writes_during_the_copy(scene):
    row = scene.stop_at("copy.begun")
    place = scene.place(scene.there)
    name = scene.place(scene.here).names()[24]
    place.put(name, {"whose": "not ours"})
    scene.go()
    ended = scene.finish_cleanly(row)
    assert ended["ending"] == VERIFICATION
    assert place.names() == [name]
    assert place.record(name) == {"whose": "not ours"}
    place.remove(name)
    scene.settle(row)


def test_nothing_is_written_over_even_where_the_role_would_let_it():
    """On version 2 a write says that nothing may be there; the server, not the policy, then keeps what is."""
    with stage(intercepted=False, failpoints=True) as scene:
        acme = scene.customer
        acme.versions["second"] = 2
        acme.admit("second")
        scene.admin.put_keystore("acme", "v2", acme.declaration("second"))
        acme.letters["v2"], acme.versions["v2"], scene.there = "b", 2, "v2"
        place = scene.place("v2")
        policy = place.tenancy.policy(2).replace('"create", "read"', '"create", "read", "update"')
        place.vault.client().sys.create_or_update_policy(place.tenancy.role_name, policy)
        row = scene.stop_at("copy.begun")
        name = scene.place("first").names()[24]
        place.put(name, {"whose": "not ours"})
        scene.go()
        assert scene.finish_cleanly(row)["ending"] == VERIFICATION
        assert place.record(name) == {"whose": "not ours"}
        place.remove(name)
        scene.settle(row)


def test_a_key_changes_at_the_source(scene):
    row = scene.stop_at("copy.begun")
    place = scene.place(scene.here)
    name = place.names()[9]
    right = place.record(name)
    place.put(name, flipped(right))
    scene.go()
    assert scene.finish(row)["ending"] == VERIFICATION
    place.put(name, right)
    scene.settle(row)


def test_the_receipt_tells_what_was_found_at_both_ends(scene):
    row = scene.start()
    clusters = [scene.admin.keystore("acme", name)["cluster_id"] for name in (scene.here, scene.there)]
    assert scene.settle(row) == "Migration succeeded"
    receipt = scene.admin.migration("acme", row["id"])["receipt"]
    assert receipt["keys"] == 25
    assert receipt["inventory_source"] == receipt["inventory_destination"]
    assert len(receipt["inventory_source"]) == 64
    assert [receipt["cluster_source"], receipt["cluster_destination"]] == clusters
    assert receipt["requested_by"] == "ops"
    assert receipt["started_at"] < receipt["ended_at"]
    told = scene.customer.history()[-1]["detail"]
    for part in (receipt["inventory_source"], *clusters, receipt["started_at"], receipt["ended_at"], "by ops"):
        assert part in told
    # The same keys have the same inventory, wherever they are; other keys have another.
    back = scene.start()
    scene.settle(back)
    assert scene.admin.migration("acme", back["id"])["receipt"]["inventory_source"] == receipt["inventory_source"]
    scene.customer.enrol(1)
    again = scene.start()
    scene.settle(again)
    assert scene.admin.migration("acme", again["id"])["receipt"]["inventory_source"] != receipt["inventory_source"]


def test_a_standby_that_lags_behind_answers(toxiproxy):
    """Reads that it would answer from its old state are passed on to the active node; that is no failed verification."""
    # A lag is no outage; where a leader has to be elected anew meanwhile, that takes its time.
    with Testbed("a", {**SETTINGS, "retry_s": "60"}, clusters="b", network=toxiproxy) as testbed:
        cluster = testbed.clusters["b"]
        standby = cluster.standbys[0]
        admin = Client(testbed.service.url, testbed.service.make_token("ops", "provider-admin"))
        escrow_client = Client(testbed.service.url, testbed.service.make_token("authority", "authority"))
        acme = Customer("acme", testbed, admin, escrow_client)
        admin.put_organization("acme")
        for keystore in ("first", "second"):
            acme.admit(keystore)
            acme.register(keystore)
        acme.enrol(300)
        # The destination's name leads to the standby alone.
        public = f"{cluster.name}:{cluster.port}"
        targets = {**testbed.vaults["a"].host_map, public: f"127.0.0.1:{standby.public_port}"}
        testbed.service.settings["host_map"] = json.dumps(targets)
        testbed.service.restart()
        with cluster.link(cluster.leader, standby).latency(700):
            row = acme.migrate("second")
            assert (row["ending"], row["detail"]) == ("Migration succeeded", None), row["detail"]
            assert len(acme.stored("first")) == 0
            # And all of it was there: nothing was read from the standby's own state.
            assert acme.released("user-7@acme") == acme.keys["user-7@acme"]
        wait_until(lambda: len(acme.stored("second")) == 300, "the standby to have caught up")
        admin.close()
        escrow_client.close()
