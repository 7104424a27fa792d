"""Mails by SMTP."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.notifications.message import Message
from pulumi_keystore.control_plane.notifications.outbox import NotAccepted, send_due
from pulumi_keystore.control_plane.notifications.tables import Mail
from pulumi_keystore.errors import KeystoreError

_TIMEOUT_S: Final = 20


def put_to_each(session: Session, event: str, recipients: list[str], message: Message) -> None:
    """Leave one mail for each recipient, each with a Message-ID of its own."""
    for recipient in recipients:
        put(session, f"{event}.{hashlib.sha256(recipient.encode()).hexdigest()[:12]}", recipient, message)


def put(session: Session, event: str, recipient: str | None, message: Message) -> None:
    """Leave a mail for one recipient; the same message about the same event is left only once."""
    if not recipient:
        return
    row = {
        "message_id": f"<{event}.{message.kind}@pulumi-keystore>",
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
        url: smtp://[USER:PASSWORD@]HOST:PORT (STARTTLS where the server offers it) or smtps://.
        sender: Address the mails come from.
        sender_name: Name the mails come from.

    """

    sessions: sessionmaker[Session]
    url: str
    sender: str
    sender_name: str

    def check(self) -> None:
        """Raise where the URL is none.

        Raises:
            KeystoreError: It is not smtp:// or smtps:// with a host.

        """
        parts = urlsplit(self.url)
        if self.url and (parts.scheme not in {"smtp", "smtps"} or not parts.hostname):
            raise KeystoreError("the SMTP URL is not one", hint="give smtp://[USER:PASSWORD@]HOST:PORT or smtps://…")

    def send_due(self) -> int:
        """Try each mail that is due once, in order; return how many the server took."""
        if not self.url:
            return 0
        return send_due(self.sessions, Mail, self._deliver)

    def _deliver(self, mail: Mail) -> None:
        try:
            message = self._message(mail)
        except (ValueError, IndexError) as error:
            raise NotAccepted(type(error).__name__) from None
        try:
            asyncio.run(self._send(message))
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise NotAccepted(type(error).__name__) from None

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

    async def _send(self, message: EmailMessage) -> None:
        parts = urlsplit(self.url)
        # Each step of the conversation has its deadline, and so has the whole.
        async with asyncio.timeout(3 * _TIMEOUT_S):
            await aiosmtplib.send(
                message,
                hostname=parts.hostname,
                port=parts.port,
                use_tls=parts.scheme == "smtps",
                username=unquote(parts.username) if parts.username else None,
                password=unquote(parts.password) if parts.password else None,
                timeout=_TIMEOUT_S,
            )
