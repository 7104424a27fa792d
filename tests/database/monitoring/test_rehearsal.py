"""A test for everyone that a monitor names: what each receiver answers is shown, and it is sent once a minute at most."""

from datetime import timedelta

import pytest
from keystore_harness import Mailbox
from sqlalchemy import select

from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.monitoring import monitors, rehearsal
from pulumi_keystore.control_plane.monitoring.monitors import Alerting
from pulumi_keystore.control_plane.notifications.mail import MailSender
from pulumi_keystore.control_plane.notifications.tables import Hook, Mail
from pulumi_keystore.control_plane.notifications.webhooks import WebhookSender
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import NotFound, TooManyRequests


@pytest.fixture
def plane(database_url, master_key_file):
    with opened(Settings(database_url=database_url, master_key_file=master_key_file), lambda _: None) as database:
        with database.plane.transaction() as session:
            session.add(Organization(id=1, name="acme", environment="cloud"))
            session.flush()
            session.add(Keystore(organization_id=1, name="ours", kind="self-administered", address="https://v:8200"))
        yield database.plane


@pytest.fixture
def rehearse(plane):
    """Set a monitor, or none, and send a test; mails go to a real server."""
    with Mailbox() as box:
        mails = MailSender(plane.sessions, box.url, "keystore@example.com", "Keystore")
        hooks = WebhookSender(plane.sessions, plane.master_key, plane.resolver)

        def rehearse(alerting=None):
            if alerting:
                monitors.put(plane, "ops", "acme", "ours", alerting)
            return rehearsal.rehearse(plane, mails, hooks, "ops", "acme", "ours")

        rehearse.box = box
        yield rehearse


def test_each_receiver_is_told_apart(rehearse, plane):
    # The webhook's name leads nowhere.
    alerting = Alerting(("a@example.com", "b@example.com"), "https://hooks.example.com/CANARY")
    answers = {answer.pop("receiver"): answer for answer in rehearse(alerting)}
    assert answers["a@example.com"] == answers["b@example.com"] == {"accepted": True, "detail": None}
    refused = answers["webhook at hooks.example.com"]
    assert (refused["accepted"], "CANARY" in refused["detail"]) == (False, False)
    assert rehearse.box.subjects == ["Test: Keystore alerts"] * 2
    with plane.transaction() as session:
        assert not session.scalars(select(Mail)).all()
        assert not session.scalars(select(Hook)).all()


def test_a_monitor_remembers_the_answers_until_it_is_changed(rehearse, plane):
    def remembered():
        with plane.transaction() as session:
            return session.scalar(select(HealthMonitor.rehearsal))

    answers = rehearse(Alerting(("a@example.com",)))
    assert remembered()["answers"] == answers
    monitors.put(plane, "ops", "acme", "ours", Alerting(("a@example.com",)))
    assert remembered()["answers"] == answers
    monitors.put(plane, "ops", "acme", "ours", Alerting(("b@example.com",)))
    assert remembered() is None


def test_nobody_is_sent_tests_again_and_again(rehearse):
    rehearse(Alerting(("a@example.com",)))
    with pytest.raises(TooManyRequests):
        rehearse()
    assert len(rehearse.box.subjects) == 1


def test_a_monitor_that_is_removed_and_set_again_sends_no_further_test(rehearse, plane):
    """Or whoever may set monitors has the service send twenty mails to anyone, as often as they like."""
    rehearse(Alerting(("a@example.com",)))
    monitors.remove(plane, "ops", "acme", "ours")
    with pytest.raises(TooManyRequests):
        rehearse(Alerting(("a@example.com",)))
    assert len(rehearse.box.subjects) == 1


def test_an_organization_sends_so_many_tests_a_day(rehearse, plane, monkeypatch):
    monkeypatch.setattr(rehearsal, "_APART", timedelta(0))
    monkeypatch.setattr(rehearsal, "_MOST_A_DAY", 2)
    rehearse(Alerting(("a@example.com",)))
    rehearse()
    with pytest.raises(TooManyRequests, match="2 tests were sent in the last 24 hours"):
        rehearse()
    assert len(rehearse.box.subjects) == 2


def test_without_a_monitor_there_is_nobody_to_send_it_to(rehearse):
    with pytest.raises(NotFound):
        rehearse()
