"""Mails: what is left for whom, and the sender of what was left."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from functools import cached_property
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.notifications.message import Message
from pulumi_keystore.control_plane.notifications.outbox import AT_A_TIME, NotAccepted, ServerAway, send_due
from pulumi_keystore.control_plane.notifications.smtp import Connection, Connections, SmtpServer
from pulumi_keystore.control_plane.notifications.tables import Mail
from pulumi_keystore.control_plane.runtime.background import Turns
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.declarations.names import check_email
from pulumi_keystore.errors import Conflict

_DAY: Final = timedelta(days=1)
MOST_A_DAY: Final = 2000
"""How many mails about one organization are left in 24 hours."""
_log = structlog.get_logger(__name__)


def put_to_each(session: Session, organization_id: int, event: str, recipients: list[str], message: Message) -> None:
    """Leave one mail for each recipient, each with a Message-ID of its own."""
    for recipient in recipients:
        put(
            session,
            organization_id,
            f"{event}.{hashlib.sha256(recipient.encode()).hexdigest()[:12]}",
            recipient,
            message,
        )


def put(session: Session, organization_id: int, event: str, recipient: str | None, message: Message) -> None:
    """Leave a mail about an organization for one recipient; the same message about the same event is left only once."""
    if not recipient:
        return
    today = select(func.count()).where(Mail.organization_id == organization_id, Mail.created_at > now_utc() - _DAY)
    if (session.scalar(today) or 0) >= MOST_A_DAY:
        # A keystore that comes and goes each minute: its history and its incidents have all of it.
        _log.warning("mail not left: its organization has had too many today", organization=organization_id)
        return
    row = {
        "message_id": f"<{event}.{message.kind}@pulumi-keystore>",
        "organization_id": organization_id,
        "recipient": recipient,
        "subject": message.subject,
        "body": message.body,
        "created_at": now_utc(),
        "next_at": now_utc(),
    }
    session.execute(insert(Mail).values(row).on_conflict_do_nothing())


@dataclass(frozen=True)
class MailSender:
    """Sends what lies in the outbox through one SMTP server.

    Args:
        sessions: Where the outbox is.
        url: That of the server (`SmtpServer`); no mail is sent where it is empty.
        sender: Address the mails come from.
        sender_name: Name the mails come from.
        ca_file: CA in PEM that the server is verified with, the public ones if None.

    """

    sessions: sessionmaker[Session]
    url: str
    sender: str
    sender_name: str
    ca_file: Path | None = None

    @classmethod
    def of(cls, settings: Settings, sessions: sessionmaker[Session]) -> MailSender:
        """Return the one of a service's settings."""
        return cls(sessions, settings.smtp_url, settings.mail_from, settings.mail_sender_name, settings.smtp_ca)

    def test(self, recipient: str, message: Message) -> None:
        """Send a mail now, past the outbox.

        Raises:
            RuleViolation: KS033.
            Conflict: There is no mail server, or it does not take the mail; with what it said.

        """
        if not self.url:
            raise Conflict("the service has no mail server", hint="set KEYSTORE_SMTP_URL, and restart it")
        message_id = f"<test.{secrets.token_hex(8)}@pulumi-keystore>"
        mail = Mail(
            message_id=message_id,
            organization_id=0,
            recipient=check_email(recipient, "recipient"),
            subject=message.subject,
            body=message.body,
            created_at=now_utc(),
        )
        try:
            self._deliver(mail)
        except NotAccepted as refused:
            raise Conflict(
                f"the mail was not accepted: {refused}", hint="check the address and the mail settings"
            ) from None
        finally:
            self._connections.close_idle()

    def greet(self) -> None:
        """Connect and sign in as for a mail, and send none.

        Raises:
            Conflict: The server does not let us; with what it said.

        """
        try:
            Connection(self._server).close()
        except ServerAway as away:
            raise Conflict(
                f"the mail server does not let this service in: {away}",
                hint="check KEYSTORE_SMTP_URL and KEYSTORE_SMTP_CA",
            ) from None

    def send_due(self) -> int:
        """Try each mail that is due once, in order; return how many the server took within a turn."""
        if not self.url:
            return 0
        taken = send_due(self.sessions, Mail, self._deliver, self._turns)
        self._connections.close_idle()
        return taken

    @property
    def _server(self) -> SmtpServer:
        return SmtpServer(self.url, self.ca_file)

    @cached_property
    def _connections(self) -> Connections:
        return Connections(self._server)

    @cached_property
    def _turns(self) -> Turns:
        return Turns("mails", AT_A_TIME)

    def _deliver(self, mail: Mail) -> None:
        try:
            message = self._message(mail)
        except (ValueError, IndexError, MessageError) as error:
            raise NotAccepted(type(error).__name__) from None
        with self._connections.one() as connection:
            connection.send(message)

    def _message(self, mail: Mail) -> EmailMessage:
        message = EmailMessage()
        message["From"] = Address(self.sender_name, addr_spec=self.sender)
        # Not as text: that would be read for encoded words, and might come out as another address.
        message["To"] = Address(addr_spec=mail.recipient)
        message["Subject"] = mail.subject
        message["Message-ID"] = mail.message_id
        message["Date"] = mail.created_at
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.body)
        return message
