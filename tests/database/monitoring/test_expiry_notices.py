"""Notices before certificates expire, as they are left in the outbox."""

from datetime import timedelta

import pytest
from cryptography.x509 import load_pem_x509_certificate
from keystore_harness import CertificateAuthority
from sqlalchemy import select

from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.monitoring import expiry
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.notifications.tables import Hook, Mail
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization

TO = ["a@example.com", "b@example.com"]


@pytest.fixture
def end(factory):
    """When a client certificate expires that lives for a year, and a server's, 40 days later, too."""
    pem = CertificateAuthority().issue("acme").certificate_pem
    end = load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    with factory.begin() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
        session.flush()
        for number in (1, 2):
            session.add(
                Keystore(
                    id=number, organization_id=1, name=f"k{number}", kind="self-administered", address="https://v",
                    certificate_pem=pem, certificate_not_after=end,
                )
            )  # fmt: skip
        session.flush()
        session.get_one(Organization, 1).active_keystore_id = 1
        for number in (1, 2):
            session.add(
                HealthMonitor(
                    keystore_id=number, recipients=TO, offline_minutes=5, repeat_hours=24, online_minutes=5,
                    webhook_sealed=b"sealed", webhook_host="hooks.example.com",
                )
            )  # fmt: skip
            session.add(
                KeystoreHealth(
                    keystore_id=number, phase=0.0, server_not_before=end - timedelta(days=325),
                    server_not_after=end + timedelta(days=40),
                )
            )  # fmt: skip
    return end


def look(factory, at):
    """Look once, and return the subjects of all mails, by recipient."""
    with factory.begin() as session:
        expiry.tell(session, at)
        mails = session.scalars(select(Mail).order_by(Mail.id)).all()
        return {each: [mail.subject for mail in mails if mail.recipient == each] for each in TO}


def test_each_notice_is_left_once_for_the_keystore_in_use(factory, end):
    assert look(factory, end - timedelta(days=30, minutes=1)) == {each: [] for each in TO}
    wanted = []
    for days, left in ((29, "29 days"), (13, "13 days"), (2, "2 days"), (0.5, "less than a day")):
        wanted.append(f"Warning: Keystore certificate expires in {left}")
        for _ in range(3):
            assert look(factory, end - timedelta(days=days)) == dict.fromkeys(TO, wanted)
    with factory.begin() as session:
        mail = session.scalars(select(Mail)).first()
        assert "client certificate that the cloud logs in with" in mail.body
        assert f"Expires: {end:%Y-%m-%d %H:%M} UTC" in mail.body
        hooks = session.scalars(select(Hook)).all()
        assert [hook.body["event"] for hook in hooks] == ["keystore.certificate"] * 4
        assert {hook.body["certificate"] for hook in hooks} == {"client"}


def test_the_server_s_own_certificate_has_notices_of_its_own(factory, end):
    shown = look(factory, end + timedelta(days=40) - timedelta(days=10))
    assert shown == {each: ["Warning: Keystore certificate expires in 10 days"] for each in TO}
    with factory.begin() as session:
        assert "Renew the server's certificate" in session.scalars(select(Mail)).first().body


def test_a_new_certificate_has_its_notices_anew(factory, end):
    look(factory, end - timedelta(days=5))
    with factory.begin() as session:
        session.get_one(Keystore, 1).certificate_not_after = end + timedelta(days=365)
    assert len(look(factory, end - timedelta(days=4))[TO[0]]) == 1
    assert len(look(factory, end + timedelta(days=360))[TO[0]]) == 2


def test_nothing_is_said_of_what_has_expired(factory, end):
    """That is an outage, and alerts say so."""
    assert look(factory, end + timedelta(seconds=1)) == {each: [] for each in TO}


def test_a_certificate_that_cannot_be_read_holds_up_no_other(factory, end):
    with factory.begin() as session:
        session.get_one(Keystore, 1).certificate_pem = "no certificate"
        session.add(Organization(id=2, name="other", environment="cloud", active_keystore_id=2))
        session.get_one(Keystore, 2).organization_id = 2
    assert look(factory, end - timedelta(days=5)) == {
        each: ["Warning: Keystore certificate expires in 5 days"] for each in TO
    }
