"""Outage scenarios: a steady state, a fault, what is expected of the service meanwhile, and healing.

A scenario is a function of a stage, on which everything runs; it breaks something by a verb and asserts what must hold.
To write one: decorate a function with `@scenario`, and find it in `keystore-harness list`.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable

from keystore_harness.customer import Customer
from keystore_harness.errors import HarnessError
from keystore_harness.ports import wait_until
from keystore_harness.tenancy import Tenancy
from keystore_harness.theatre import DESTINATION, SOURCE, SUCCEEDED, VERIFICATION, Ground, Scenario, Stage

SCENARIOS: dict[str, Scenario] = {}


def scenario(
    fault: str,
    expectation: str,
    *,
    cluster: bool = False,
    disk_mb: int | None = None,
    lines: bool = False,
    network: bool = False,
    spoils: bool = False,
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Make a scenario of a function; its name is the function's.

    Args:
        fault: What breaks.
        expectation: What must hold.
        cluster: Let the destination be a cluster of three.
        disk_mb: Give the servers disks of their own.
        lines: Put a line before each server, which can lead elsewhere.
        network: Put Toxiproxy before each server, for faults of the network.
        spoils: Nothing else can be played on what it leaves behind.

    """

    def register(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = play.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(name, fault, expectation, play, Ground(cluster, disk_mb, lines, network), spoils)
        return play

    return register


@scenario("the keystore is killed for some seconds (--seconds)", "nothing is lost; users enrol again afterwards")
def outage(stage: Stage) -> None:
    user, key = "new@example.com", "A" * 43 + "="
    body = {"keys": {user: key}}
    with stage.testbed.servers["a"].killed():
        stage.expect_refused("an enrolment", lambda: stage.customer.enrol(body))
        time.sleep(stage.settings.seconds)
    stage.expect_complete("first")
    stage.expect("a migration succeeds afterwards", holds=_migrates(stage))


def _migrates(stage: Stage) -> bool:
    row = stage.customer.start_migration()
    return bool(stage.customer.ended(row)["ending"] == SUCCEEDED)


@scenario("the source restarts and stays sealed", "the migration fails, and succeeds once it is unsealed")
def sealed_after_restart(stage: Stage) -> None:
    with stage.testbed.servers["a"].restarted_sealed():
        stage.expect_ending(stage.customer.start_migration(), SOURCE)
    stage.expect_complete("first")
    stage.expect_ending(stage.customer.start_migration(), SUCCEEDED)
    stage.expect_complete("second")


@scenario("the server gets a certificate of another name", "the service refuses it and tells no token to it")
def certificate_rotated_wrongly(stage: Stage) -> None:
    with stage.testbed.servers["b"].wrong_name():
        stage.expect_ending(stage.customer.start_migration(), DESTINATION)
    stage.expect_complete("first")
    stage.expect_ending(stage.customer.start_migration(), SUCCEEDED)


@scenario("the server's certificate ends", "the service refuses it until there is a new one")
def expired_certificate(stage: Stage) -> None:
    with stage.testbed.servers["b"].expired_certificate():
        stage.expect_ending(stage.customer.start_migration(), DESTINATION)
    stage.expect_complete("first")
    stage.expect_ending(stage.customer.start_migration(), SUCCEEDED)


@scenario("the leader of the destination's cluster is killed in the middle", "every key is in one place", cluster=True)
def leader_lost(stage: Stage) -> None:
    row = stage.customer.start_migration()
    stage.customer.wait_for_share(row, 0.3)
    with stage.testbed.clusters["b"].leader_stopped():
        ending = stage.customer.ended(row)["ending"]
        stage.expect(f"a stated ending: {ending!r}", holds=ending in {SUCCEEDED, DESTINATION})
    stage.customer.wait_for_clean_up(row)
    stage.expect_complete("second" if ending == SUCCEEDED else "first")


@scenario("the destination is killed when 10 % of the keys have moved", "rolled back, then migrated again")
def destination_lost_at_the_start(stage: Stage) -> None:
    stage.migrate_during(stage.testbed.servers["b"].killed(), 0.1, DESTINATION)


@scenario("the destination is killed when 50 % of the keys have moved", "rolled back, then migrated again")
def destination_lost_at_half(stage: Stage) -> None:
    stage.migrate_during(stage.testbed.servers["b"].killed(), 0.5, DESTINATION)


@scenario(
    "the destination is killed when 90 % of the keys have moved", "rolled back, then migrated again", network=True
)
def destination_lost_near_the_end(stage: Stage) -> None:
    # A slower network leaves time to strike between the ninth tenth and the end.
    with stage.testbed.servers["b"].network.latency(100):
        stage.migrate_during(stage.testbed.servers["b"].killed(), 0.9, DESTINATION)


@scenario("the source is killed when 30 % of the keys have moved", "rolled back, then migrated again")
def source_lost(stage: Stage) -> None:
    stage.migrate_during(stage.testbed.servers["a"].killed(), 0.3, SOURCE)


@scenario("somebody flips a bit of a key before it is copied", "the migration fails its verification")
def key_tampered_with(stage: Stage) -> None:
    first = stage.customer.places["first"]
    with first.flipped_bit(first.names()[7]):
        stage.expect_ending(stage.customer.start_migration(), VERIFICATION)
    stage.expect_complete("first")


@scenario("somebody puts a key into the destination during the copy", "the migration fails its verification")
def destination_tampered_with(stage: Stage) -> None:
    row = stage.customer.start_migration()
    stage.customer.wait_for_share(row, 0.1)
    with stage.customer.places["second"].added():
        stage.expect_ending(row, VERIFICATION)
    stage.customer.wait_for_clean_up(row)
    stage.expect_complete("first")


@scenario("every answer of the destination takes 200 ms longer", "the migration succeeds, only later", network=True)
def slow_network(stage: Stage) -> None:
    with stage.testbed.servers["b"].network.latency(200, jitter=50):
        stage.expect_ending(stage.customer.start_migration(), SUCCEEDED)
    stage.expect_complete("second")


@scenario("the destination's disk is full", "the migration fails, and succeeds once there is room", disk_mb=64)
def disk_full(stage: Stage) -> None:
    with stage.testbed.servers["b"].disk_full():
        stage.expect_ending(stage.customer.start_migration(), DESTINATION)
    stage.expect_complete("first")
    stage.expect_ending(stage.customer.start_migration(), SUCCEEDED)
    stage.expect_complete("second")


@scenario("the service is killed in the middle", "it goes on where it was")
def service_killed(stage: Stage) -> None:
    row = stage.customer.start_migration()
    stage.customer.wait_for_share(row, 0.3)
    stage.testbed.service.restart()
    stage.expect_ending(row, SUCCEEDED)
    stage.expect_complete("second")


@scenario("a database of before a migration is restored", "nothing is deleted, and everything comes back", spoils=True)
def database_restored(stage: Stage) -> None:
    testbed, customer = stage.testbed, stage.customer
    backup = testbed.folder / "yesterday.dump"
    testbed.service.dump_database(backup)
    stage.expect_ending(customer.start_migration(), SUCCEEDED)
    stage.expect_complete("second")
    testbed.service.restore_database(backup)
    stage.expect_refused("an enrolment", lambda: customer.enrol({"keys": {"new@example.com": "A" * 43 + "="}}))
    stage.expect("the organization is suspended", holds=bool(customer.call("GET", "")["suspended"]))
    stage.expect("every key is where it was", holds=len(customer.places["second"].names()) == len(customer.keys))
    customer.call("POST", "recovery", {"code": customer.call("GET", "recovery")["code"]})
    stage.expect_complete("second")


@scenario("the keystore's name leads to another, empty cluster", "nothing is written there", lines=True)
def name_leads_elsewhere(stage: Stage) -> None:
    testbed, customer = stage.testbed, stage.customer
    other = testbed.rebuilt("a")
    place = other.admit(customer.name)
    with testbed.lines["a"].leading_to(other.port):
        stage.expect_refused("an enrolment", lambda: customer.enrol({"keys": {"new@example.com": "A" * 43 + "="}}))
        stage.expect("nothing lies at the other cluster", holds=place.names() == [])
    stage.expect_complete("first")


@scenario(
    "the server is restored from a snapshot that is too old", "missing keys are named, and come back", spoils=True
)
def snapshot_too_old(stage: Stage) -> None:
    testbed, customer = stage.testbed, stage.customer
    server = testbed.servers["a"]
    snapshot = server.snapshot()
    user = "late@example.com"
    customer.enrol({"keys": {user: "A" * 43 + "="}})
    server.restore(snapshot)
    missing = wait_until(lambda: _missing(customer), "the service to name what is missing")
    stage.expect("the user whose key is missing is named", holds=missing == [user])
    customer.enrol({"keys": {user: "A" * 43 + "="}})
    stage.expect("the key is there again", holds=_missing(customer) == [])
    customer.keys[user] = bytes(32)
    stage.expect_complete("first")


@scenario("a clean-up waits, and its server's name leads to the active one", "nothing is deleted there", lines=True)
def name_leads_to_the_active_server(stage: Stage) -> None:
    testbed, customer = stage.testbed, stage.customer
    active = testbed.servers["b"]
    first = customer.places["first"]
    as_the_other = testbed.ca.issue_server(testbed.servers["a"].name, active.name, "127.0.0.1")
    row = customer.start_migration()
    with active.showing(as_the_other):
        with first.may_not_delete():
            stage.expect_ending(row, SUCCEEDED)
            waiting = customer.call("GET", "clean-ups")
            testbed.lines["a"].lead_to(active.port)
        number = waiting[0]["id"]
        stage.expect_refused("the clean-up", lambda: customer.call("POST", f"clean-ups/{number}/retry"))
        found = len(customer.places["second"].names())
        stage.expect("every key is where it was", holds=found == len(customer.keys))
        testbed.lines["a"].lead_to(testbed.servers["a"].port)
    customer.wait_for_clean_up(row)
    stage.expect_complete("second")


@scenario("the server is restored elsewhere, and the old one still takes keys", "an edit to the new one is refused")
def restored_elsewhere(stage: Stage) -> None:
    testbed, customer = stage.testbed, stage.customer
    clone = testbed.clone("a", testbed.servers["a"].snapshot())
    testbed.service.learn(f"{clone.name}:{clone.port}", clone.port)
    customer.enrol({"keys": {"late@example.com": "A" * 43 + "="}})
    customer.keys["late@example.com"] = bytes(32)
    declared = {**customer.declaration("first"), "address": clone.address}
    stage.expect_refused("the edit", lambda: customer.call("POST", "keystores/first/swap", declared))
    stage.expect_complete("first")


@scenario(
    "the service is lost with its database and master key",
    "nothing is written over, and all is taken in again",
    spoils=True,
)
def service_lost(stage: Stage) -> None:
    service, customer = stage.testbed.service, stage.customer
    service.lose_everything()
    customer.declare()
    user = next(iter(customer.keys))
    stage.expect_refused("another key for a user", lambda: customer.enrol({"keys": {user: "A" * 43 + "="}}))
    customer.call("POST", "recovery", {"code": customer.call("GET", "recovery")["code"]})
    stage.expect("no key is missing", holds=_missing(customer) == [])
    stage.expect_complete("first")


@scenario("the destination's mount is told to delete what is written", "nothing moves there until that is taken back")
def mount_deletes(stage: Stage) -> None:
    customer = stage.customer
    tenancy = Tenancy(customer.name, f"kv-{customer.name}", f"keystore-{customer.name}-2")
    customer.places["third"] = place = stage.testbed.admit("b", tenancy, 2)
    customer.register("third")
    with place.deleting_after("40s"):
        stage.expect_refused("the migration", lambda: customer.start_migration("third"))
    stage.expect_ending(customer.start_migration("third"), SUCCEEDED)
    stage.expect_complete("third")


@scenario("the destination gives tokens that cannot be ended", "nothing moves there until that is taken back")
def batch_tokens(stage: Stage) -> None:
    with stage.customer.places["second"].role_changed(token_type="batch"):  # noqa: S106 - a type
        stage.expect_refused("the migration", stage.customer.start_migration)
    stage.expect_ending(stage.customer.start_migration(), SUCCEEDED)
    stage.expect_complete("second")


def _missing(customer: Customer) -> list[str] | None:
    try:
        return list(customer.call("POST", "verify")["missing"]["names"])
    except HarnessError:
        return None  # the server loads what it was given


@scenario("packets of an outage come late", "no key that was acknowledged is struck by them", lines=True)
def packets_come_late(stage: Stage) -> None:
    line, customer = stage.testbed.lines["a"], stage.customer
    keys = {f"late-{number}@example.com": bytes([number]) * 32 for number in range(100)}
    body = {"keys": {user: b64encode(key).decode() for user, key in keys.items()}}
    with line.outage(late_s=2):
        stage.expect_refused("an enrolment in the outage", lambda: customer.enrol(body))
    customer.enrol(body)
    customer.keys |= keys
    line.await_quiet()
    stage.expect_complete("first")
