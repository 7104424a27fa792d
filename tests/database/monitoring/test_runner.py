"""Rounds of health checks: a mistake with one keystore ends none of the others' checks."""

from types import SimpleNamespace

import pytest

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import opening
from pulumi_keystore.control_plane.monitoring import runner
from pulumi_keystore.control_plane.monitoring.runner import HealthChecks
from pulumi_keystore.control_plane.monitoring.schedule import Turn
from pulumi_keystore.control_plane.monitoring.status import Result
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization


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
