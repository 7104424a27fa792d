"""The conversation with the mail server (RFC 5321): what it costs to begin one is paid once for many mails."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiosmtplib

from pulumi_keystore.control_plane.notifications.outbox import NotAccepted, ServerAway, Undeliverable

_TIMEOUT_S: Final = 20
_GOODBYE_S: Final = 2
"""How long the server has to take leave; the mails that wait meanwhile are due."""
_PERMANENT: Final = 500
"""Replies from here on are for good (RFC 5321 §4.2.1)."""
_LONGEST_REPLY: Final = 200
_FAULTS: Final = (aiosmtplib.SMTPException, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server, and how it is spoken with.

    Args:
        url: smtp://[USER:PASSWORD@]HOST:PORT or smtps://. With smtp:// STARTTLS is used where the server offers it, and
            insisted on where there is a password, but on this very machine.
        ca_file: CA in PEM that the server is verified with, the public ones if None.

    """

    url: str
    ca_file: Path | None = None

    def client(self) -> aiosmtplib.SMTP:
        """Return a client that is not connected yet."""
        parts = urlsplit(self.url)
        # No password goes out in clear.
        start_tls = True if parts.password and parts.scheme == "smtp" and not _is_here(parts.hostname or "") else None
        return aiosmtplib.SMTP(
            hostname=parts.hostname,
            port=parts.port,
            use_tls=parts.scheme == "smtps",
            start_tls=start_tls,
            tls_context=ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else None,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            timeout=_TIMEOUT_S,
        )


class Connection:
    """One connection, signed in where that is asked for; used by one thread at a time.

    Raises:
        ServerAway: The server is not there, or does not let us in; with what it said.

    """

    def __init__(self, server: SmtpServer) -> None:
        self._runner = asyncio.Runner()
        self._client = server.client()
        try:
            self._run(self._client.connect())
        except _FAULTS as error:
            self._runner.close()
            raise ServerAway(_said(error)) from None

    def send(self, message: EmailMessage) -> None:
        """Hand a message over.

        Raises:
            Undeliverable: The server does not take it for good.
            NotAccepted: It does not take it now.

        """
        try:
            self._run(self._client.send_message(message))
        except aiosmtplib.SMTPRecipientsRefused as error:
            refusal = error.recipients[0]
            kind = Undeliverable if refusal.code >= _PERMANENT else NotAccepted
            raise kind(_said(refusal)) from None
        except _FAULTS as error:
            raise NotAccepted(_said(error)) from None

    def is_alive(self) -> bool:
        """Tell whether the server still listens: many end a connection after some time, or some mails."""
        try:
            self._run(self._client.noop())
        except _FAULTS:
            return False
        return True

    def close(self) -> None:
        """Say goodbye."""
        with suppress(*_FAULTS):
            self._run(self._client.quit(), _GOODBYE_S)
        self._client.close()
        self._runner.close()

    def _run(self, step: Coroutine[Any, Any, object], within_s: float = 3 * _TIMEOUT_S) -> None:
        async def in_time() -> None:
            # Each reply has its deadline, and so has the whole.
            async with asyncio.timeout(within_s):
                await step

        self._runner.run(in_time())


class Connections:
    """Connections to one server, used again until they are closed; threads may take them side by side."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._idle: SimpleQueue[Connection] = SimpleQueue()

    def close_idle(self) -> None:
        """Close those that nobody uses."""
        while (connection := self._next()) is not None:
            connection.close()

    @contextmanager
    def one(self) -> Iterator[Connection]:
        """Lend a connection.

        Raises:
            ServerAway: There is none.

        """
        connection = self._next()
        if connection is not None and not connection.is_alive():
            connection.close()
            connection = None
        connection = connection or Connection(self._server)
        try:
            yield connection
        finally:
            self._idle.put(connection)

    def _next(self) -> Connection | None:
        try:
            return self._idle.get_nowait()
        except Empty:
            return None


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
