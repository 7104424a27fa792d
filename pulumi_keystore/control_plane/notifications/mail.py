"""Mails by SMTP."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import secrets
import ssl
from dataclasses import dataclass
from datetime import timedelta
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.notifications.message import Message
from pulumi_keystore.control_plane.notifications.outbox import NotAccepted, Undeliverable, send_due
from pulumi_keystore.control_plane.notifications.tables import Mail
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import check_email
from pulumi_keystore.errors import Conflict

_TIMEOUT_S: Final = 20
_PERMANENT: Final = 500
"""Replies from here on are for good (RFC 5321 §4.2.1)."""
_LONGEST_REPLY: Final = 200
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


@dataclass(frozen=True, slots=True)
class MailSender:
    """Sends what lies in the outbox through one SMTP server.

    Args:
        sessions: Where the outbox is.
        url: smtp://[USER:PASSWORD@]HOST:PORT or smtps://. With smtp:// STARTTLS is used where the server offers it, and
            insisted on where there is a password, but on this very machine.
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
    def of(cls, plane: ControlPlane) -> MailSender:
        """Return the one of a service's settings."""
        given = plane.settings
        return cls(plane.sessions, given.smtp_url, given.mail_from, given.mail_sender_name, given.smtp_ca)

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

    def greet(self) -> None:
        """Connect and sign in as for a mail, and send none.

        Raises:
            Conflict: The server does not let us; with what it said.

        """
        try:
            asyncio.run(self._converse(None))
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise Conflict(
                f"the mail server does not let this service in: {_said(error)}",
                hint="check KEYSTORE_SMTP_URL and KEYSTORE_SMTP_CA",
            ) from None

    def send_due(self) -> int:
        """Try each mail that is due once, in order; return how many the server took."""
        if not self.url:
            return 0
        return send_due(self.sessions, Mail, self._deliver)

    def _deliver(self, mail: Mail) -> None:
        try:
            message = self._message(mail)
        except (ValueError, IndexError, MessageError) as error:
            raise NotAccepted(type(error).__name__) from None
        try:
            asyncio.run(self._converse(message))
        except aiosmtplib.SMTPRecipientsRefused as error:
            refusal = error.recipients[0]
            kind = Undeliverable if refusal.code >= _PERMANENT else NotAccepted
            raise kind(_said(refusal)) from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise NotAccepted(_said(error)) from None

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

    async def _converse(self, message: EmailMessage | None) -> None:
        """Send a message, or do all but that."""
        parts = urlsplit(self.url)
        # No password goes out in clear.
        start_tls = True if parts.password and parts.scheme == "smtp" and not _is_here(parts.hostname or "") else None
        server = aiosmtplib.SMTP(
            hostname=parts.hostname,
            port=parts.port,
            use_tls=parts.scheme == "smtps",
            start_tls=start_tls,
            tls_context=ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else None,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            timeout=_TIMEOUT_S,
        )
        # Each step of the conversation has its deadline, and so has the whole.
        async with asyncio.timeout(3 * _TIMEOUT_S), server:
            if message is not None:
                await server.send_message(message)


def _said(error: BaseException) -> str:
    """Return what a server has answered, on one line, or what else went wrong."""
    code = getattr(error, "code", None)
    if not isinstance(error, aiosmtplib.SMTPException):
        return type(error).__name__
    text = "".join(character if character.isprintable() else " " for character in str(error.message))
    return f"{code or type(error).__name__} {' '.join(text.split())[:_LONGEST_REPLY]}"


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
