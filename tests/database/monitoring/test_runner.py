"""Rounds of health checks: a mistake with one keystore ends none of the others' checks."""

from contextvars import copy_context
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import opening
from pulumi_keystore.control_plane.monitoring import runner
from pulumi_keystore.control_plane.monitoring.runner import HealthChecks
from pulumi_keystore.control_plane.monitoring.schedule import Turn
from pulumi_keystore.control_plane.monitoring.status import Result
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault import transport


@pytest.mark.parametrize("where", ["endpoint", "probe"])
def test_a_foreign_exception_in_one_check_ends_no_other(factory, monkeypatch, where):
    with factory.begin() as session:
        for number in (1, 2, 3):
            session.add(Organization(id=number, name=f"org-{number}", environment="cloud"))
            session.flush()
            session.add(Keystore(id=number, organization_id=number, name="k", kind="self-administered"))
    found = {}

    def endpoint_of(plane, owner, keystore):
        if where == "endpoint" and keystore.id == 2:
            raise ZeroDivisionError
        return keystore.id

    def probe(subject, lookups, seconds):
        if where == "probe" and subject.endpoint == 2:
            raise ZeroDivisionError
        return Result(online=True)
        yield

    monkeypatch.setattr(opening, "endpoint_of", endpoint_of)
    monkeypatch.setattr(runner, "tenancy", lambda *_: None)
    monkeypatch.setattr(runner, "probe", probe)
    monkeypatch.setattr(HealthChecks, "_record", lambda *given: found.update(given[1]))
    plane = SimpleNamespace(settings=SimpleNamespace(health_check_s=2), transaction=factory.begin)
    HealthChecks(plane)._test([Turn(number, 7, now_utc()) for number in (1, 2, 3)])
    assert {turn.keystore_id for turn, result in found.items() if result} == {1, 3}


@pytest.mark.parametrize("asked", ["look", "test"])
def test_a_health_check_rests_never(factory, monkeypatch, asked):
    """It would take of the time that the keystore has to answer."""
    with factory.begin() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
        session.flush()
        session.add(Keystore(id=1, organization_id=1, name="k", kind="self-administered", address="https://x.io:8200"))
    rests = []

    def probe(*_):
        rests.append(transport.rest.get())
        return Result(online=True)
        yield

    monkeypatch.setattr(opening, "endpoint_of", lambda *_: None)
    monkeypatch.setattr(runner, "tenancy", lambda *_: None)
    monkeypatch.setattr(runner, "probe", probe)
    monkeypatch.setattr(HealthChecks, "_record", lambda *_: None)
    plane = SimpleNamespace(settings=SimpleNamespace(health_check_s=2), transaction=factory.begin)
    checks = HealthChecks(plane)

    def ask():
        transport.rest.set(lambda: None)
        if asked == "test":
            checks._test([Turn(1, 7, now_utc(), asked=True)])
        else:
            with factory.begin() as session:
                owner, keystore = session.get_one(Organization, 1), session.get_one(Keystore, 1)
                session.expunge_all()
            checks.look(owner, keystore)

    copy_context().run(ask)
    assert rests == [None]


def test_what_one_keystore_makes_the_database_refuse_costs_no_other_its_result(factory, monkeypatch):
    """All results of a round are one transaction, as long as nothing is wrong with any of them."""
    recorded = []

    def record(session, instance, found, interval_s, ledger):
        if any(turn.keystore_id == 2 for turn in found):
            session.execute(text("select chr(0)"))
        recorded.extend(turn.keystore_id for turn in found)
        return []

    monkeypatch.setattr(runner.results, "record", record)
    settings = SimpleNamespace(health_check_interval_s=60)
    plane = SimpleNamespace(settings=settings, transaction=factory.begin, instance="me")
    HealthChecks(plane)._record({Turn(number, 7, now_utc()): Result(online=True) for number in (1, 2, 3)}, {})
    assert recorded == [1, 3]


def test_a_database_that_is_away_is_waited_for_once(factory, monkeypatch):
    tries = []

    def record(*_):
        tries.append(1)
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(runner.results, "record", record)
    settings = SimpleNamespace(health_check_interval_s=60)
    plane = SimpleNamespace(settings=settings, transaction=factory.begin, instance="me")
    with pytest.raises(OperationalError):
        HealthChecks(plane)._record({Turn(number, 7, now_utc()): None for number in range(50)}, {})
    assert len(tries) == 1


def test_no_round_that_can_begin_is_no_turn_that_went_well(monkeypatch):
    """The gauge of health checks falls behind then."""
    checks = HealthChecks(SimpleNamespace(settings=SimpleNamespace(health_check_s=2)))
    monkeypatch.setattr(checks, "_free", SimpleNamespace(acquire=lambda **_: False))
    with pytest.raises(KeystoreError, match="not come to their end"):
        checks.begin_due()
