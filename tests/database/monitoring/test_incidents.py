"""Incidents in a real database: when one begins and ends, and how often somebody was told."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from pulumi_keystore.causes import Cause
from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.monitoring import incidents, results, views
from pulumi_keystore.control_plane.monitoring.schedule import Turn
from pulumi_keystore.control_plane.monitoring.status import Result
from pulumi_keystore.control_plane.monitoring.tables import HealthHour, HealthSample, Incident, KeystoreHealth
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.declarations.monitor import Period

BEGIN = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
WELL = Result(online=True, seconds=0.04)
SEALED = Result(online=False, reason="Host unavailable", detail="sealed: unseal it", seconds=0.2, cause=Cause.SEALED)
REFUSED = Result(online=False, reason="Host unavailable", detail="refused: start it", cause=Cause.REFUSED)


@pytest.fixture
def watched(factory):
    """Tests a keystore minute by minute, as results say, and returns its incidents."""
    with factory.begin() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
        session.flush()
        session.add(Keystore(id=1, organization_id=1, name="first", kind="self-administered", address="https://v"))
        session.flush()
        session.get_one(Organization, 1).active_keystore_id = 1
        monitor = {"recipients": ["a@example.com"], "offline_minutes": 5, "repeat_hours": 1, "online_minutes": 5}
        session.add(HealthMonitor(keystore_id=1, **monitor))
        session.add(KeystoreHealth(keystore_id=1, phase=0.0))
    minute = 0

    def go_on(*found):
        nonlocal minute
        for result in found:
            minute += 1
            if result is None:
                continue
            with factory.begin() as session:
                session.get_one(KeystoreHealth, 1).claimed_by = "me"
                session.flush()
                results.record(session, "me", {Turn(1, minute, BEGIN + timedelta(minutes=minute)): result}, 60)
        with factory.begin() as session:
            now = BEGIN + timedelta(minutes=minute)
            return incidents.of_keystore(session, session.get_one(Keystore, 1), now, 500)

    return go_on


def test_an_incident_begins_with_the_first_failed_test_and_ends_with_the_first_good_one(watched):
    assert watched(WELL, WELL) == []
    (one,) = watched(SEALED, REFUSED)
    assert one.pop("id") > 0
    assert one == {
        "begun_at": (BEGIN + timedelta(minutes=3)).isoformat(),
        "ended_at": None,
        "duration_s": 60,
        "reason": "Host unavailable",
        "cause": "sealed",  # what it began with
        "detail": "sealed: unseal it",
        "alerts": 0,
    }
    (one,) = watched(WELL, WELL)
    assert (one["duration_s"], one["ended_at"]) == (120, (BEGIN + timedelta(minutes=5)).isoformat())


def test_what_comes_and_goes_is_one_incident_and_what_comes_back_later_another(watched):
    assert len(watched(*[SEALED, WELL, WELL] * 20)) == 1
    two = watched(*[WELL] * 5, REFUSED)
    assert [each["cause"] for each in two] == ["refused", "sealed"]
    assert [each["ended_at"] is None for each in two] == [True, False]


def test_a_service_that_was_away_neither_ends_nor_begins_one(watched):
    watched(SEALED)
    (one,) = watched(*[None] * 300, SEALED)
    assert (one["ended_at"], one["duration_s"]) == (None, 301 * 60)


def test_each_time_somebody_is_told_is_counted(watched):
    (one,) = watched(*[SEALED] * 6)
    assert one["alerts"] == 1
    (one,) = watched(*[SEALED] * 60)
    assert one["alerts"] == 2
    (one,) = watched(*[WELL] * 6)
    assert one["alerts"] == 3


def test_hours_hold_what_their_minutes_said(watched, factory):
    watched(*[WELL] * 30, *[SEALED] * 10, *[None] * 30, *[WELL] * 10)
    with factory.begin() as session:
        hours = session.scalars(select(HealthHour).order_by(HealthHour.hour)).all()
        assert [(row.tested, row.online, row.slowest_s) for row in hours] == [(40, 30, 0.2), (10, 10, 0.04)]
        sample = session.get_one(HealthSample, (1, 31))
        assert (sample.online, sample.reason, sample.cause, sample.seconds) == (
            False,
            "Host unavailable",
            "sealed",
            0.2,
        )


def test_what_is_old_is_forgotten_and_an_incident_that_lasts_is_not(watched, factory):
    watched(SEALED, *[WELL] * 9, REFUSED)
    with factory.begin() as session:
        results.forget_old(session, BEGIN + timedelta(days=100))
        assert [row.cause for row in session.scalars(select(Incident))] == [Cause.REFUSED]
        assert session.scalars(select(HealthHour)).all() == session.scalars(select(HealthSample)).all() == []


def test_a_bar_of_a_month_says_why_it_was_offline(watched, factory):
    """The reason is kept with the hour: single minutes are not."""
    watched(WELL, SEALED, REFUSED, WELL)
    with factory() as session:
        plane = SimpleNamespace(settings=SimpleNamespace(health_check_interval_s=60))
        now = BEGIN + timedelta(minutes=10)
        past = views.reliability(session, plane, session.get_one(Keystore, 1), now, Period.MONTH)
    [bar] = [each for each in past.tests if each.made]
    assert str(bar) == "2 of 4 tests offline: Host unavailable, refused"
