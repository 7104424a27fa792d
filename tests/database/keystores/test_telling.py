"""What is not an outage reaches everybody whom a monitor names, also where that is a webhook alone."""

import pytest
from sqlalchemy import select

from pulumi_keystore.control_plane.keystores import checkpoints, telling
from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.notifications.message import Message
from pulumi_keystore.control_plane.notifications.tables import Hook, Mail
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization


@pytest.fixture
def owners(factory):
    """Two organizations; the keystores of acme tell a person twice, and a webhook each."""
    timings = {"offline_minutes": 5, "repeat_hours": 24, "online_minutes": 5}
    with factory.begin() as session:
        session.add_all(
            Organization(id=n, name=name, environment="cloud") for n, name in enumerate(("acme", "other"), 1)
        )
        session.flush()
        for number, owner, recipients in (
            (1, 1, ["a@example.com"]),
            (2, 1, ["a@example.com"]),
            (3, 2, ["b@example.com"]),
        ):
            session.add(Keystore(id=number, organization_id=owner, name=f"k{number}", kind="self-administered"))
            session.flush()
            hook = b"sealed" if owner == 1 else None
            session.add(HealthMonitor(keystore_id=number, recipients=recipients, webhook_sealed=hook, **timings))


def test_each_person_is_told_once_and_each_webhook_called(factory, owners):
    with factory.begin() as session:
        owner = session.get_one(Organization, 1)
        for _ in range(2):  # the same event is left once
            telling.tell_all(session, owner, "event", Message("missing", "Keys are missing", "text"))
        assert [mail.recipient for mail in session.scalars(select(Mail))] == ["a@example.com"]
        hooks = session.scalars(select(Hook).order_by(Hook.id)).all()
        assert [hook.body["keystore"] for hook in hooks] == ["k1", "k2"]
        assert {hook.body["event"] for hook in hooks} == {"keystore.missing"}


def test_a_suspension_is_told_to_webhooks_too(factory, owners):
    with factory.begin() as session:
        owner = session.get_one(Organization, 1)
        checkpoints.suspend(session, owner, "a keystore is newer")
        checkpoints.suspend(session, owner, "and again")
        assert [hook.body["event"] for hook in session.scalars(select(Hook))] == ["keystore.suspended"] * 2
        assert [mail.recipient for mail in session.scalars(select(Mail))] == ["a@example.com"]
