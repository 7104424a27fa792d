"""The durable outbox: a message is written in the transaction of what it tells about, and sent until it is accepted.

A mail keeps its Message-ID through every attempt, so that a doubtful repeat is recognised as one mail.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeVar

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore import failpoints
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.notifications.tables import OutboxMessage
from pulumi_keystore.control_plane.runtime.tables import is_due

_LONGEST_WAIT_S: Final = 900
_log = structlog.get_logger(__name__)
P = TypeVar("P", bound=OutboxMessage)


class NotAccepted(Exception):  # noqa: N818 - it is an answer
    """The other side did not take a message; the text is safe to keep."""


def send_due(sessions: sessionmaker[Session], table: type[P], deliver: Callable[[P], None]) -> int:
    """Try each message of a table that is due once, in order; return how many were taken.

    Args:
        sessions: Where the outbox is.
        table: What is sent.
        deliver: Hands one over, or raises `NotAccepted`.

    """
    with sessions() as session:
        due_now = is_due(table.next_at, now_utc(), _LONGEST_WAIT_S)
        due = session.scalars(select(table.id).where(table.sent_at.is_(None), due_now).order_by(table.id)).all()
    return sum(_try(sessions, table, number, deliver) for number in due)


def _try(sessions: sessionmaker[Session], table: type[P], number: int, deliver: Callable[[P], None]) -> bool:
    with sessions.begin() as session:
        message = session.get_one(table, number)
        message.attempts += 1
        kind = table.__name__.lower()
        try:
            deliver(message)
        except NotAccepted as refusal:
            wait = min(2.0 ** min(message.attempts, 10), _LONGEST_WAIT_S)
            message.next_at = now_utc() + timedelta(seconds=wait)
            message.last_error = str(refusal)
            _log.warning(f"{kind} not accepted", number=number, attempt=message.attempts, error=message.last_error)
            return False
        failpoints.reach("outbox.delivered")
        message.sent_at = now_utc()
    _log.info(f"{kind} sent", number=number)
    return True
