"""Whose turn it is, in a real database: with any number of processes each minute is tested once."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from keystore_harness import wait_until
from sqlalchemy import delete, func, select, text

from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.monitoring import results as health
from pulumi_keystore.control_plane.monitoring import schedule
from pulumi_keystore.control_plane.monitoring.schedule import Turn
from pulumi_keystore.control_plane.monitoring.status import Result
from pulumi_keystore.control_plane.monitoring.tables import HealthHour, HealthSample, Incident, KeystoreHealth
from pulumi_keystore.control_plane.notifications.tables import Mail
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.database import connect, sessions
from tests.conftest import effort
from tests.database.conftest import new_database

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
WELL = Result(online=True)
ILL = Result(online=False, reason="Host unavailable", detail="sealed: unseal the server")
MANY = effort(200, 1_000, 10_000)


@pytest.fixture(scope="module")
def database(postgres, template):
    """A database with many keystores, each in use and monitored."""
    engine = connect(new_database(postgres, template))
    factory = sessions(engine)
    with factory.begin() as session:
        session.bulk_insert_mappings(
            Organization, [{"id": n, "name": f"org-{n}", "environment": "cloud"} for n in range(1, MANY + 1)]
        )
        session.bulk_insert_mappings(
            Keystore,
            [
                {"id": n, "organization_id": n, "name": "k", "kind": "self-administered", "address": f"https://k{n}"}
                for n in range(1, MANY + 1)
            ],
        )
        session.execute(Organization.__table__.update().values(active_keystore_id=Organization.id))
        session.bulk_insert_mappings(
            HealthMonitor,
            [
                {
                    "keystore_id": n,
                    "recipients": [f"a{n}@example.com"],
                    "offline_minutes": 5,
                    "repeat_hours": 24,
                    "online_minutes": 5,
                }
                for n in range(1, MANY + 1)
            ],
        )
    yield factory
    engine.dispose()


@pytest.fixture(autouse=True)
def clean(database):
    with database.begin() as session:
        for table in (HealthSample, HealthHour, Incident, KeystoreHealth, Mail):
            session.execute(delete(table))
        session.execute(HealthMonitor.__table__.update().values(alert=None))


def test_a_keystore_is_removed_while_its_result_is_recorded(database, monkeypatch):
    """Neither waits for the other for ever: the database would end one of them."""
    number = MANY + 1
    with database.begin() as session:
        session.add(Keystore(id=number, organization_id=1, name="spare", kind="self-administered", address="https://s"))
        session.flush()
        session.add(KeystoreHealth(keystore_id=number, phase=0.0, claimed_by="me"))
    removed = []

    def remove():
        with database.begin() as session:
            session.execute(delete(Keystore).where(Keystore.id == number))
        removed.append(number)

    thread = threading.Thread(target=remove)
    waiting = text("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'DELETE%'")
    unhindered = health._monitored

    def look(session, numbers):
        thread.start()
        wait_until(lambda: one_waits(database, waiting), "the removal to wait for us")
        return unhindered(session, numbers)

    monkeypatch.setattr(health, "_monitored", look)
    with database.begin() as session:
        health.record(session, "me", {Turn(number, 1, NOW): WELL}, 60)
    thread.join(60)
    assert removed == [number]


def one_waits(database, query):
    with database.begin() as session:
        return session.scalar(query) == 1


def claim(database, who, now, most=500):
    with database.begin() as session:
        return schedule.claim(session, who, now, 60, 20, most)


def record(database, who, results):
    with database.begin() as session:
        return health.record(session, who, results, 60)


def test_ten_processes_at_once_take_each_keystore_once(database):
    taken, lock = Counter(), threading.Lock()

    def work(who):
        while turns := claim(database, who, NOW):
            with lock:
                taken.update(turn.keystore_id for turn in turns)
            record(database, who, dict.fromkeys(turns, WELL))

    threads = [threading.Thread(target=work, args=(f"process-{n}",)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == MANY
    assert set(taken.values()) == {1}
    assert claim(database, "late", NOW) == []


def test_every_keystore_each_minute_by_one_process(database, capsys):
    """In simulation: nothing is asked, and all else is as it is. The figure is printed."""
    claim(database, "warm", NOW - timedelta(hours=1), MANY)
    begun, minutes = time.monotonic(), 3
    for minute in range(minutes):
        now = NOW + timedelta(minutes=minute + 1)
        while turns := claim(database, "one", now, 200):
            record(database, "one", {turn: ILL if turn.keystore_id % 10 == 0 else WELL for turn in turns})
    each = (time.monotonic() - begun) / minutes
    with capsys.disabled():
        print(f"\n{MANY:,} keystores: claimed and recorded in {each:.1f} s of a minute, by one process on one core")
    with database.begin() as session:
        assert session.scalar(select(func.count()).select_from(HealthSample)) == MANY * minutes


def test_who_died_with_a_keystore_is_replaced_in_the_same_minute(database):
    taken = claim(database, "dies", NOW, MANY)
    assert len(taken) == MANY
    assert claim(database, "next", NOW + timedelta(seconds=19), MANY) == []
    again = claim(database, "next", NOW + timedelta(seconds=21), MANY)
    assert {turn.keystore_id for turn in again} == {turn.keystore_id for turn in taken}
    # The one that was taken for dead has nothing to say any more.
    record(database, "dies", dict.fromkeys(taken, ILL))
    record(database, "next", dict.fromkeys(again, WELL))
    with database.begin() as session:
        assert session.scalar(select(func.count()).where(HealthSample.online.is_(False))) == 0
        assert session.scalar(select(func.count()).where(HealthSample.online.is_(True))) == MANY


def test_a_test_that_could_not_be_made_is_made_again(database):
    turns = claim(database, "one", NOW, 10)
    record(database, "one", dict.fromkeys(turns))
    again = claim(database, "one", NOW, MANY)
    assert {turn.keystore_id for turn in turns} <= {turn.keystore_id for turn in again}


def minutes_of(database, tests, begin=NOW):
    """Let minutes pass for one keystore, at moments in minutes; return the alerts as (moment, alert)."""
    told = []
    for moment, result in tests:
        now = begin + timedelta(minutes=moment)
        turns = [turn for turn in claim(database, "one", now, MANY) if turn.keystore_id == 1]
        told += [(moment, str(alert)) for alert in record(database, "one", dict.fromkeys(turns, result))]
        with database.begin() as session:  # all others wait for another time
            session.execute(
                KeystoreHealth.__table__.update().where(KeystoreHealth.keystore_id != 1).values(
                    claimed_by=None, claimed_until=None, minute=10**9
                )
            )  # fmt: skip
    return told


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ([(n, ILL) for n in range(5)], []),
        ([(n, ILL) for n in range(8)], [(5, "failure")]),
        # The service was away for eight hours: that is no outage, and makes no burst.
        ([(0, ILL), *[(480 + n, ILL) for n in range(6)]], [(484, "failure")]),
        # The clock was set an hour back, or a day ahead, in the middle of it.
        ([(0, ILL), (1, ILL), (2, ILL), (-58, ILL), (-57, ILL), (-56, ILL)], [(-56, "failure")]),
        ([(0, ILL), (1, ILL), *[(1500 + n, ILL) for n in range(5)]], [(1503, "failure")]),
        # A test that came late, and the next one in time: they are less than a minute apart.
        ([(0.9, ILL), (1.1, ILL), *[(n + 0.1, ILL) for n in range(2, 8)]], [(6.1, "failure")]),
    ],
)
def test_gaps_and_clocks(database, tests, expected):
    with database.begin() as session:
        session.add(KeystoreHealth(keystore_id=1, phase=0.0))
    assert minutes_of(database, tests) == expected
    with database.begin() as session:
        assert session.scalar(select(func.count()).select_from(Mail)) == len(expected)


def ask(database, now, result, who="one"):
    """Have the first keystore tested because someone asks; return the alerts, None where a test is under way."""
    with database.begin() as session:
        turn = schedule.take(session, who, now, 60, 20, 1)
    return None if turn is None else record(database, who, {turn: result})


def known(database):
    with database.begin() as session:
        row = session.get_one(KeystoreHealth, 1)
        tests = session.scalar(select(func.count()).where(HealthSample.keystore_id == 1))
        counted = session.scalar(select(func.sum(HealthHour.tested)).where(HealthHour.keystore_id == 1))
        return row.online, row.tested_at, tests, counted


def test_a_test_that_someone_asks_for_is_what_is_known_from_then_on(database):
    with database.begin() as session:
        session.add(KeystoreHealth(keystore_id=1, phase=0.0))
    assert ask(database, NOW, WELL) == []
    assert known(database) == (True, NOW, 1, 1)  # of a minute that was not tested yet
    later = NOW + timedelta(seconds=20)
    assert ask(database, later, ILL) == []
    assert known(database) == (False, later, 1, 1)
    with database.begin() as session:
        assert session.scalar(select(func.count()).select_from(Incident).where(Incident.ended_at.is_(None))) == 1
    ask(database, NOW + timedelta(seconds=30), WELL)
    with database.begin() as session:
        assert session.scalar(select(func.count()).select_from(Incident).where(Incident.ended_at.is_(None))) == 0


def test_while_a_test_is_under_way_no_other_is_made(database):
    assert claim(database, "one", NOW, MANY)
    assert ask(database, NOW, WELL) is None
    assert ask(database, NOW, WELL, "another") is None


def test_tests_that_someone_asks_for_make_no_alert_early_or_late(database):
    with database.begin() as session:
        session.add(KeystoreHealth(keystore_id=1, phase=0.0))
    told = []
    for minute in range(7):
        told += minutes_of(database, [(minute, ILL)])
        for seconds in (10, 30, 55):
            assert ask(database, NOW + timedelta(minutes=minute, seconds=seconds), ILL) == []
    assert told == [(5, "failure")]


def test_what_a_process_that_has_ended_had_claimed_is_free_at_once(database):
    taken = claim(database, "ended", NOW, 10)
    with database.begin() as session:
        schedule.release(session, "ended")
    again = claim(database, "next", NOW, MANY)
    assert {turn.keystore_id for turn in taken} <= {turn.keystore_id for turn in again}
    record(database, "ended", dict.fromkeys(taken, ILL))
    with database.begin() as session:
        assert session.scalar(select(func.count()).select_from(HealthSample)) == 0
