"""The durable outbox: a mail is written in the transaction of what it tells about, and sent until it is accepted.

A mail keeps its Message-ID through every attempt, so that a doubtful repeat is recognised as one mail.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore.certificate import now_utc
from pulumi_keystore.control_plane.models import Mail, is_due
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.notify.templates import Letter

_LONGEST_WAIT_S: Final = 900
_TIMEOUT_S: Final = 20
_log = structlog.get_logger(__name__)


def put(session: Session, event: str, recipient: str | None, letter: Letter) -> None:
    """Leave a mail for one recipient; the same letter about the same event is left only once."""
    if not recipient:
        return
    row = {
        "message_id": f"<{event}.{letter.kind}@pulumi-keystore>",
        "recipient": recipient,
        "subject": letter.subject,
        "body": letter.body,
        "created_at": now_utc(),
        "next_at": now_utc(),
    }
    session.execute(insert(Mail).values(row).on_conflict_do_nothing())


@dataclass(frozen=True, slots=True)
class Postman:
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
        sent = 0
        with self.sessions() as session:
            due_now = is_due(Mail.next_at, now_utc(), _LONGEST_WAIT_S)
            due = session.scalars(select(Mail.id).where(Mail.sent_at.is_(None), due_now).order_by(Mail.id)).all()
        for mail_id in due:
            sent += self._try(mail_id)
        return sent

    def _try(self, mail_id: int) -> bool:
        with self.sessions.begin() as session:
            mail = session.get_one(Mail, mail_id)
            mail.attempts += 1
            try:
                asyncio.run(self._send(self._message(mail)))
            except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
                wait = min(2.0 ** min(mail.attempts, 10), _LONGEST_WAIT_S)
                mail.next_at = now_utc() + timedelta(seconds=wait)
                mail.last_error = type(error).__name__
                _log.warning("mail not accepted", mail=mail_id, attempt=mail.attempts, error=mail.last_error)
                return False
            mail.sent_at = now_utc()
        _log.info("mail sent", mail=mail_id, subject=mail.subject)
        return True

    def _message(self, mail: Mail) -> EmailMessage:
        message = EmailMessage()
        message["From"] = Address(self.sender_name, addr_spec=self.sender)
        message["To"] = mail.recipient
        message["Subject"] = mail.subject
        message["Message-ID"] = mail.message_id
        message["Date"] = mail.created_at
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.body)
        return message

    async def _send(self, message: EmailMessage) -> None:
        parts = urlsplit(self.url)
        await aiosmtplib.send(
            message,
            hostname=parts.hostname,
            port=parts.port,
            use_tls=parts.scheme == "smtps",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            timeout=_TIMEOUT_S,
        )
