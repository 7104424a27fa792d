"""Who may begin a migration, and how often."""

from datetime import timedelta

import pytest

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.identity.roles import Principal, Role
from pulumi_keystore.control_plane.migration import lifecycle
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.declarations.migration import Mode, Phase, State
from pulumi_keystore.errors import TooManyRequests
from tests.database.served import MIGRATIONS

THEIRS = Principal("ops", Role.CUSTOMER_CLOUD_ADMIN, "acme")
PROVIDERS = Principal("provider", Role.PROVIDER_ADMIN)


class BegunError(Exception):
    """It comes to the look at the servers."""


@pytest.fixture
def start(plane, monkeypatch):
    """Begin a migration as somebody."""
    with plane.transaction() as session:
        owner = registry.find(session, "acme")
        for name in ("first", "second"):
            session.add(Keystore(organization_id=owner.id, name=name, kind="self-administered"))
        session.flush()
        owner.active_keystore_id = session.query(Keystore.id).filter_by(name="first").scalar()

    def look(*_args, **_kwargs):
        raise BegunError

    monkeypatch.setattr(lifecycle, "check_ends", look)
    clean_ups = type("CleanUps", (), {"release": lambda *_: None})()
    return lambda actor: lifecycle.start(plane, actor, "acme", "second", None, clean_ups)


@pytest.fixture
def ended(plane):
    """Let so many migrations have begun some minutes ago."""

    def begin(number, minutes):
        with plane.transaction() as session:
            owner = registry.find(session, "acme")
            for each in range(number):
                session.add(
                    Migration(
                        id=f"{minutes}-{each}", organization_id=owner.id, source_id=1, destination_id=2, source="a",
                        destination="b", state=State.SUCCEEDED, phase=Phase.ENDED, mode=Mode.MAINTENANCE, total=1,
                        requested_by="ops", started_at=now_utc() - timedelta(minutes=minutes),
                    )
                )  # fmt: skip

    return begin


def test_an_organization_migrates_so_often_in_an_hour_and_its_provider_more(start, ended):
    ended(MIGRATIONS, 61)
    ended(MIGRATIONS - 1, 1)
    with pytest.raises(BegunError):
        start(THEIRS)
    ended(1, 59)
    with pytest.raises(TooManyRequests, match=f"{MIGRATIONS} migrations of the organization 'acme' began"):
        start(THEIRS)
    with pytest.raises(BegunError):
        start(PROVIDERS)
