"""Mails through a real SMTP server: what it says is told, and no password goes out in clear."""

import socket
import ssl

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from keystore_harness import CertificateAuthority, Mailbox, free_port
from sqlalchemy import select

from pulumi_keystore.control_plane.notifications import mail, smtp
from pulumi_keystore.control_plane.notifications.mail import MailSender
from pulumi_keystore.control_plane.notifications.message import Message
from pulumi_keystore.control_plane.notifications.tables import Mail
from pulumi_keystore.errors import Conflict, RuleViolation

MESSAGE = Message("test", "A subject", "A body")


class Refusing:
    """Takes no recipient; remembers what it was told of passwords."""

    def __init__(self, answer):
        self.answer, self.passwords = answer, []

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - as aiosmtpd calls it
        if not self.answer:
            envelope.rcpt_tos.append(address)
        return self.answer or "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - as above
        return "250 OK"

    def authenticate(self, server, session, envelope, mechanism, data):
        self.passwords.append((session.ssl is not None, data.password))
        return AuthResult(success=True)


@pytest.fixture
def serve():
    started = []

    def serve(answer="", **options):
        handler = Refusing(answer)
        controller = Controller(
            handler, hostname="127.0.0.1", port=free_port(), authenticator=handler.authenticate, **options
        )
        controller.start()
        started.append(controller)
        return handler, controller.port

    yield serve
    for controller in started:
        controller.stop()


def sender(factory, url, ca_file=None):
    return MailSender(factory, url, "keystore@example.com", "Keystore", ca_file)


def sent(factory, url):
    with factory.begin() as session:
        mail.put(session, 1, "event", "ops@example.com", MESSAGE)
    sender(factory, url).send_due()
    with factory() as session:
        return session.scalar(select(Mail))


def test_what_the_server_said_is_kept(factory, serve):
    _, port = serve("450 4.2.1 mailbox busy")
    row = sent(factory, f"smtp://127.0.0.1:{port}")
    assert (row.last_error, row.given_up_at) == ("450 4.2.1 mailbox busy", None)


def test_a_recipient_that_is_refused_for_good_is_not_tried_again(factory, serve):
    _, port = serve("550 5.1.1 no such user")
    row = sent(factory, f"smtp://127.0.0.1:{port}")
    assert row.last_error == "550 5.1.1 no such user"
    assert row.given_up_at is not None


def test_a_test_mail_arrives_or_tells_why_not(factory, serve):
    with Mailbox() as box:
        sender(factory, box.url).test("ops@example.com", MESSAGE)
        assert box.subjects == ["A subject"]
    _, port = serve("550 no such user")
    with pytest.raises(Conflict, match="550 no such user"):
        sender(factory, f"smtp://127.0.0.1:{port}").test("ops@example.com", MESSAGE)
    with pytest.raises(Conflict, match="no mail server"):
        sender(factory, "").test("ops@example.com", MESSAGE)
    with pytest.raises(RuleViolation):
        sender(factory, box.url).test("ops", MESSAGE)


@pytest.fixture
def elsewhere(monkeypatch):
    """Have the server on this machine be taken for one elsewhere."""
    monkeypatch.setattr(smtp, "_is_here", lambda _: False)


def test_a_password_is_not_sent_to_a_server_without_tls(factory, serve, elsewhere):
    handler, port = serve(auth_require_tls=False)
    with pytest.raises(Conflict, match="STARTTLS"):
        sender(factory, f"smtp://me:CANARY@127.0.0.1:{port}").test("ops@example.com", MESSAGE)
    assert handler.passwords == []


def test_a_password_is_sent_under_tls_to_a_server_of_a_private_ca(factory, serve, elsewhere, tmp_path):
    authority = CertificateAuthority()
    issued = authority.issue_server("localhost")
    (tmp_path / "ca.pem").write_text(authority.pem)
    (tmp_path / "both.pem").write_text(issued.key_pem + issued.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    handler, port = serve(tls_context=context)
    url = f"smtp://me:secret@localhost:{port}"
    with pytest.raises(Conflict, match="not accepted"):
        sender(factory, url).test("ops@example.com", MESSAGE)  # no public CA has issued it
    sender(factory, url, tmp_path / "ca.pem").test("ops@example.com", MESSAGE)
    assert handler.passwords == [(True, b"secret")]


def left(factory, *recipients, organization=1):
    with factory.begin() as session:
        for recipient in recipients:
            mail.put(session, organization, f"event.{recipient}", recipient, MESSAGE)


def outcomes(factory):
    with factory() as session:
        return {row.recipient: (row.attempts, row.sent_at is not None) for row in session.scalars(select(Mail))}


def test_the_mails_of_a_round_share_a_connection_whatever_becomes_of_each(factory, serve):
    """A server that lets each connection wait, as many do against spam, lets one wait."""
    handler, port = serve()

    async def handle_RCPT(server, session, envelope, address, options):  # noqa: N802 - as aiosmtpd calls it
        handler.peers.add(session.peer)
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    handler.peers, handler.handle_RCPT = set(), handle_RCPT
    left(factory, "a@example.com", "nobody@example.com", "b@example.com", "c@example.com")
    assert sender(factory, f"smtp://127.0.0.1:{port}").send_due() == 3
    assert outcomes(factory)["nobody@example.com"] == (1, False)
    assert len(handler.peers) == 1


def test_a_server_that_ends_the_connection_after_each_mail_gets_all_of_them(factory, serve):
    handler, port = serve()

    async def handle_DATA(server, session, envelope):  # noqa: N802 - as aiosmtpd calls it
        server.loop.call_soon(server.transport.write_eof)
        handler.taken += envelope.rcpt_tos
        return "250 OK"

    handler.taken, handler.handle_DATA = [], handle_DATA
    recipients = [f"{letter}@example.com" for letter in "abc"]
    left(factory, *recipients)
    assert sender(factory, f"smtp://127.0.0.1:{port}").send_due() == 3
    assert handler.taken == recipients


def test_a_server_that_does_not_answer_costs_a_round_one_wait(factory, monkeypatch):
    """Each mail would cost another one, and be put off for longer and longer though nothing is wrong with it."""
    monkeypatch.setattr(smtp, "_TIMEOUT_S", 0.5)
    for organization in range(1, 4):
        left(factory, *(f"{number}.{organization}@example.com" for number in range(5)), organization=organization)
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        assert sender(factory, f"smtp://127.0.0.1:{hangs.getsockname()[1]}").send_due() == 0
    # Those of several organizations are tried side by side.
    assert sum(attempts for attempts, _ in outcomes(factory).values()) <= 3
    with Mailbox() as box:
        assert sender(factory, box.url).send_due() >= 12
