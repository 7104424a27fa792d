"""One organization's Vault hangs; another one notices nothing of it."""

import threading
import time
from base64 import b64encode

import psycopg
import pytest
from keystore_harness import wait_until

from pulumi_keystore.client import Client
from pulumi_keystore.declarations.tenancy import key_name
from pulumi_keystore.errors import KeystoreError, TooManyRequests, Unsuitable

MANY = 85
IDLE = (
    "SELECT query FROM pg_stat_activity"
    " WHERE state = 'idle in transaction' AND state_change < now() - interval '0.5 s'"
    # That of DBOS, of whose processes one looks after the queues.
    " AND query NOT LIKE 'SELECT pg_try_advisory_xact_lock%'"
)


@pytest.fixture
def statements(testbed):
    """Ask the service's database."""
    url = testbed.service.database_url.replace("postgresql+psycopg:", "postgresql:")
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda query: connection.execute(query).fetchall()


def enrol(testbed, token, organization, user, outcomes):
    with Client(testbed.service.url, token) as client:
        try:
            body = {"keys": {user: b64encode(bytes(32)).decode()}}
            outcomes.append(client.request("POST", "organizations", organization, "archive-keys", body=body))
        except KeystoreError as error:
            outcomes.append(error)


def is_read(organization):
    try:
        return organization.released(f"user-0@{organization.name}")
    except KeystoreError:
        return None


def test_status_and_release_at_a_vault_that_hangs_hold_no_transaction(customer, testbed, statements):
    slow = customer(1, keystores=("first",))
    viewer = testbed.service.make_token("x", "viewer")
    with testbed.servers["a"].paused():
        threads = [
            threading.Thread(
                target=testbed.service.run, args=("status", slow.name), kwargs={"token": viewer, "check": False}
            ),
            threading.Thread(target=is_read, args=(slow,)),
        ]
        for thread in threads:
            thread.start()
        seen, looks = set(), 0
        while any(thread.is_alive() for thread in threads):
            seen |= set(statements(IDLE))
            looks += 1
            time.sleep(0.2)
        assert looks > 5  # they have waited for the Vault
        assert seen == set()


def test_enrolments_at_a_vault_that_hangs_hold_up_nobody_else(customer, testbed, statements):
    slow, quick = customer(1, keystores=("first",)), customer(1, keystores=("second",))
    token, outcomes = testbed.service.make_token("authority", "authority"), []
    with testbed.servers["a"].paused():
        threads = [
            threading.Thread(target=enrol, args=(testbed, token, slow.name, f"u{number}@{slow.name}", outcomes))
            for number in range(MANY)
        ]
        for thread in threads:
            thread.start()
        # Those over its share are told at once; the others wait for the Vault, or for those who wait for it.
        wait_until(lambda: sum(isinstance(one, TooManyRequests) for one in outcomes) >= MANY - 80, "the refusals")
        assert statements(IDLE) == []
        quick.enrol(1)
        assert quick.released(f"user-0@{quick.name}")
        assert (
            testbed.service.run("status", quick.name, token=testbed.service.make_token("x", "viewer")).returncode == 0
        )
        for thread in threads:
            thread.join()
    assert not any(isinstance(one, dict) for one in outcomes)
    # It has failed many times in a row, and is asked again every few seconds.
    wait_until(lambda: is_read(slow), "the Vault to be asked again")
    slow.enrol(3)
    # Of those that failed some may have been written by a request that was on its way: nobody was told so.
    assert {key_name(user, 1): key for user, key in slow.keys.items()}.items() <= slow.stored("first").items()
    quick.assert_complete("second")


@pytest.fixture
def few(testbed):
    """Let an organization have twenty archive keys."""
    service = testbed.service
    service.settings["keys_per_organization"] = "20"
    service.restart()
    yield
    del service.settings["keys_per_organization"]
    service.restart()


def test_an_organization_has_so_many_keys_in_escrow_and_none_is_lost_beyond(customer, testbed, request):
    """Neither by enrolment nor by what lies at its server does one fill the service's database or memory."""
    full, other = customer(25), customer(1, keystores=("first",))
    request.getfixturevalue("few")
    with pytest.raises(TooManyRequests, match="may have 20 archive keys in escrow"):
        full.enrol(1)
    with pytest.raises(Unsuitable, match="holds more than the 20 archive keys"):
        full.admin.plan_recovery(full.name)
    other.enrol(3)
    # What it has is released, verified and migrated all the same.
    assert full.admin.verify(full.name)["sound"]
    full.admin.start_migration(full.name, "second", None, "maintenance")
    wait_until(lambda: full.admin.organization(full.name)["active_keystore"] == "second", "the migration", 120)
    full.assert_complete("second")
