"""Every call that a migration or an enrolment makes fails once, and for good, in every way."""

import os
import secrets
from base64 import b64encode
from collections import Counter

import pytest
from keystore_harness import wait_until
from keystore_harness.interceptor import Failure

from pulumi_keystore.errors import KeystoreError
from tests.conftest import WHOLE
from tests.torture.stage import stage

# What an undisturbed migration makes; more calls come of faults, and of waiting.
VAULT_CALLS = 290
SQL_CALLS = 600
# A short run takes each n-th call, and another one for each failure; TORTURE_STRIDE takes other ones.
VAULT_STRIDE, SQL_STRIDE = (1, 1) if WHOLE else (291, 601)
if "TORTURE_STRIDE" in os.environ:
    VAULT_STRIDE = SQL_STRIDE = int(os.environ["TORTURE_STRIDE"])
# The same of an enrolment of two users, on connections that are open.
ENROLMENT_CALLS, ENROLMENT_SQL_CALLS = 4, 15
FAILURES = list(Failure)
# A time-out, and what fails for good, costs so many seconds.
QUICK = {"retry_s": "1.5", "request_s": "1.5"}


def numbers(calls: int, stride: int, shift: int, kinds: int) -> range:
    """Return the calls that one of several kinds of cells fails, those of a short run all along the way."""
    return range(1 + shift * stride // kinds, calls + 1, stride)


@pytest.fixture(scope="module")
def vaults():
    with stage(intercepted=True, **QUICK) as made:
        yield made


@pytest.fixture(scope="module")
def database():
    with stage(intercepted=False, **QUICK) as made:
        yield made


def test_an_undisturbed_migration_makes_about_as_many_calls_as_are_tried(vaults, database):
    vaults.plan.set(10**9, Failure.INTERNAL)
    assert vaults.settle(vaults.start()) == "Migration succeeded"
    made = vaults.plan.calls
    database.database_plan.set(10**9, Failure.INTERNAL)
    row = database.start()
    database.finish(row)
    queries = database.database_plan.calls
    assert database.settle(row) == "Migration succeeded"
    print(f"Vault calls: {made}, SQL calls: {queries}")
    assert VAULT_CALLS - 10 <= made <= VAULT_CALLS + 80  # on a slow machine some are repeated
    # Those who wait ask the database, too, so on a slow machine there are more.
    assert queries >= SQL_CALLS // 3


def test_so_many_cells_are_run():
    vault = sum(len(numbers(VAULT_CALLS, VAULT_STRIDE, shift, 2 * len(FAILURES))) for shift in range(2 * len(FAILURES)))
    sql = sum(len(numbers(SQL_CALLS, SQL_STRIDE, shift, len(FAILURES))) for shift in range(len(FAILURES)))
    print(f"{vault} cells let a call to a Vault fail, {sql} one to the database")
    if "TORTURE_STRIDE" not in os.environ:
        assert (vault, sql) == ((5220, 5400) if WHOLE else (18, 9))


def try_one(scene, plan, number, failure, *, for_good=False):
    """Let one call of a migration fail; return what it struck, and how the migration ended well."""
    plan.set(number, failure, for_good=for_good)
    row = scene.start()
    if row is not None and row["id"]:
        row = scene.finish(row)
    struck = plan.struck
    plan.clear()
    try:
        return struck, scene.settle(row)
    except BaseException:
        print(f"call {number} ({struck}) fails with {failure}, {'for good' if for_good else 'once'}")
        raise


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_a_call_to_a_vault_fails(vaults, failure, for_good):
    cells = numbers(VAULT_CALLS, VAULT_STRIDE, FAILURES.index(failure) * 2 + for_good, 2 * len(FAILURES))
    tried = [try_one(vaults, vaults.plan, number, failure, for_good=for_good) for number in cells]
    struck, endings = sum(what is not None for what, _ in tried), Counter(ending for _, ending in tried)
    print(f"{len(cells)} cells, {struck} struck: {dict(endings)}")
    assert sum(endings.values()) == len(cells)
    assert struck >= len(cells) * 0.7


def test_one_wrong_answer_while_the_source_is_emptied_leaves_no_key_there(vaults):
    """The last third of the calls empty the source: a key that reads as something else is looked at once more."""
    struck = [try_one(vaults, vaults.plan, number, Failure.WRONG)[0] for number in (250, 257, 264)]
    assert any(str(what).startswith("GET") and "/acme/" in str(what) for what in struck), struck


def enrol(scene, keys):
    body = {"keys": {user: b64encode(key).decode() for user, key in keys.items()}}
    try:
        scene.customer.escrow_client.request("POST", "organizations", "acme", "archive-keys", body=body)
    except KeystoreError as error:
        assert error.status in (409, 424, 500, 503), error
        return False
    return True


def try_enrolment(scene, plan, number, failure, *, for_good=False):
    """Let one call of an enrolment fail: what is acknowledged is there, and what is not can be repeated."""
    keys = {f"u{number}-{secrets.token_hex(4)}": secrets.token_bytes(32) for _ in range(2)}
    plan.set(number, failure, for_good=for_good)
    acknowledged = enrol(scene, keys)
    struck = plan.struck
    plan.clear()

    def repeated():
        scene.revive()
        return enrol(scene, keys)

    try:
        if acknowledged:
            assert {user: scene.customer.released(user) for user in keys} == keys
        wait_until(repeated, "the same keys to be taken again", 60, 0.1)
        assert {user: scene.customer.released(user) for user in keys} == keys
    except BaseException:
        print(f"call {number} ({struck}) fails with {failure}, {'for good' if for_good else 'once'}")
        raise
    scene.customer.keys |= keys
    return struck is not None


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("failure", FAILURES if WHOLE else FAILURES[::3], ids=str)
def test_a_call_of_an_enrolment_fails(vaults, database, failure):
    stride = 1 if WHOLE else 4
    struck = 0
    for for_good in (False, True):
        for number in range(1, ENROLMENT_CALLS + 1, stride):
            struck += try_enrolment(vaults, vaults.plan, number, failure, for_good=for_good)
    for number in range(1, ENROLMENT_SQL_CALLS + 1, stride):
        struck += try_enrolment(database, database.database_plan, number, failure)
    tried = 2 * len(range(1, ENROLMENT_CALLS + 1, stride)) + len(range(1, ENROLMENT_SQL_CALLS + 1, stride))
    print(f"{tried} cells, {struck} struck")
    assert struck >= tried * 0.5
    for scene in (vaults, database):
        scene.assert_whole()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_a_call_to_the_database_fails(database, failure):
    cells = numbers(SQL_CALLS, SQL_STRIDE, FAILURES.index(failure), len(FAILURES))
    endings = Counter(try_one(database, database.database_plan, number, failure)[1] for number in cells)
    print(f"{len(cells)} cells: {dict(endings)}")
    assert sum(endings.values()) == len(cells)
