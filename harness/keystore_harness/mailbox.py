"""A real SMTP server that keeps what it is sent."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from keystore_harness.ports import free_port, wait_until


class Mailbox:
    """An SMTP server on 127.0.0.1. Use it as a context manager; `messages` is what arrived, in order."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.messages: list[Message] = []
        self.recipients: list[str] = []
        self.refuse_with: str | None = None
        """An SMTP answer such as "421 try later" that each message gets instead of being kept."""
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)

    @property
    def url(self) -> str:
        """Where to send mail, as smtp://HOST:PORT."""
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def subjects(self) -> list[str]:
        """The subjects of all messages, in the order of their arrival."""
        return [str(message["Subject"]) for message in self.messages]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802, ARG002
        """Keep one message (called by aiosmtpd)."""
        if self.refuse_with:
            return self.refuse_with
        content: Any = envelope.content or b""
        self.messages.append(message_from_bytes(content, policy=default))
        self.recipients.extend(envelope.rcpt_tos)
        return "250 OK"

    def wait_for(self, subject: str, count: int = 1, timeout_s: float = 30) -> None:
        """Wait until `count` messages with this subject have arrived."""
        wait_until(lambda: self.subjects.count(subject) >= count, f"{count} mails {subject!r}", timeout_s)

    def __enter__(self) -> Mailbox:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
