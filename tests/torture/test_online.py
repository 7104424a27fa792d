"""Keys are enrolled while their organization migrates online: all testbed, and nobody waits long."""

import secrets
import statistics
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
from keystore_harness import wait_until

from pulumi_keystore.client import Client
from pulumi_keystore.errors import InMaintenance, KeystoreError, RuleViolation
from tests.conftest import WHOLE
from tests.torture.stage import stage

KEYS, RATE = (10_000, 50) if WHOLE else (600, 10)
HELD_S = 2.0


class Enrolments:
    """Users who enrol at a steady rate, whatever goes on. Use it as a context manager."""

    def __init__(self, scene, rate):
        self._url, self._token = scene.testbed.service.url, scene.authority_token
        self._interval = 1 / rate
        self._stop = threading.Event()
        self.keys, self.refused, self.seconds = {}, [], []
        self._pool = ThreadPoolExecutor(30)
        self._clients = threading.local()

    def _enrol(self, number):
        client = getattr(self._clients, "client", None)
        if client is None:
            client = self._clients.client = Client(self._url, self._token)
        user, key = f"late-{number}-{secrets.token_hex(3)}", secrets.token_bytes(32)
        body = {"keys": {user: b64encode(key).decode()}}
        begun = time.monotonic()
        try:
            client.request("POST", "organizations", "acme", "archive-keys", body=body)
        except KeystoreError as error:
            self.refused.append(error)
        else:
            self.keys[user] = key
            self.seconds.append(time.monotonic() - begun)

    def _run(self):
        number, due = 0, time.monotonic()
        while not self._stop.is_set():
            self._pool.submit(self._enrol, number)
            number, due = number + 1, due + self._interval
            self._stop.wait(max(0.0, due - time.monotonic()))

    def __enter__(self):
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()


@pytest.fixture(scope="module")
def busy():
    # A lease that a busy machine can keep.
    settings = {"shard_size": "200", "retry_s": "5", "request_s": "5", "stall_s": "60", "lease_s": "5"}
    with stage(intercepted=False, failpoints=True, **settings) as made:
        made.authority_token = made.testbed.service.make_token("devices", "authority")
        yield made


def online(scene):
    return scene.admin.start_migration("acme", scene.there, None, "online")


@pytest.mark.timeout(600)
def test_every_key_that_is_enrolled_meanwhile_lands(busy):
    busy.customer.enrol(KEYS)
    with Enrolments(busy, RATE) as enrolments:
        row = online(busy)
        ended = busy.finish(row, 300)
    assert enrolments.refused == []
    assert ended["ending"] == "Migration succeeded"
    busy.customer.keys |= enrolments.keys
    receipt = ended["receipt"]
    assert busy.settle(row) == "Migration succeeded"
    late = receipt["keys"] - KEYS - 25
    slowest, usual = max(enrolments.seconds), statistics.median(enrolments.seconds)
    print(f"{KEYS:,} keys and {late:,} enrolled meanwhile at {RATE}/s; writes held {receipt['writes_held_s']} s;")
    print(f"an enrolment took {usual * 1000:.0f} ms as a rule and {slowest * 1000:.0f} ms at the most")
    assert late > RATE / 2
    assert receipt["writes_held_s"] < HELD_S
    assert receipt["mode"] == "online"
    assert receipt["inventory_source"] == receipt["inventory_destination"]


def test_a_migration_that_is_canceled_keeps_what_was_enrolled_meanwhile(busy):
    busy.plan_moments("verify.fenced wait")
    row = online(busy)
    wait_until(lambda: busy.struck, "the moment", interval_s=0.01)
    busy.customer.enrol(20)
    assert len(busy.customer.stored(busy.there)) == len(busy.customer.keys)  # they went to both sides
    busy.admin.cancel_migration("acme", row["id"])
    busy.go()
    assert busy.settle(row) == "Migration canceled: migration process stalled"


def test_an_enrolment_that_failed_in_the_middle_is_no_obstacle_and_its_key_is_kept(busy):
    """It wrote its key and then not its row: nobody can tell it from an acknowledged one, so it goes with the others."""
    busy.plan_moments("verify.done wait")
    row = online(busy)
    wait_until(lambda: busy.struck, "the moment", interval_s=0.01)
    place = busy.place(busy.there)
    name = place.add("half@enrolled.example")
    place.put(name, {**place.record(name), "origin": row["id"]})
    busy.go()
    row = busy.finish(row)
    assert row["ending"] == "Migration succeeded"
    busy.await_clean_up(row)
    assert place.names().count(name) == 1
    busy.admin.destroy_key("acme", "half@enrolled.example", "never acknowledged")
    assert busy.settle(row) == "Migration succeeded"


def test_a_key_that_reached_only_the_source_is_brought_over(busy):
    busy.plan_moments("verify.done wait")
    row = online(busy)
    wait_until(lambda: busy.struck, "the moment", interval_s=0.01)
    with busy.server(busy.there).paused():
        busy.customer.enrol(3)  # the destination does not answer: the enrolment succeeds all the same
    busy.go()
    assert busy.settle(row) == "Migration succeeded"


def test_the_service_is_killed_while_enrolments_are_held(busy):
    there = busy.there
    busy.plan_moments("decide.undecided kill")
    row = online(busy)
    wait_until(lambda: busy.struck, "the moment", interval_s=0.01)
    busy.revive()
    assert busy.settle(row) == "Migration succeeded"
    assert busy.here == there


def test_the_default_holds_writes_from_the_beginning(busy):
    row = busy.stop_at("copy.begun")
    with pytest.raises(InMaintenance):
        busy.customer.enrol(1)
    busy.customer.keys = dict(list(busy.customer.keys.items())[: row["total"]])
    busy.go()
    assert busy.settle(row) == "Migration succeeded"


def test_what_is_no_mode_is_refused(busy):
    with pytest.raises(RuleViolation) as caught:
        busy.admin.start_migration("acme", busy.there, None, "sometimes")
    assert caught.value.rule == "KS038"
