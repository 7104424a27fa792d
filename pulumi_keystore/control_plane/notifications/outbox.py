"""The durable outbox: a parcel is written in the transaction of what it tells about, and sent until it is accepted.

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
from pulumi_keystore.control_plane.notifications.tables import Parcel
from pulumi_keystore.control_plane.runtime.tables import is_due

_LONGEST_WAIT_S: Final = 900
_log = structlog.get_logger(__name__)
P = TypeVar("P", bound=Parcel)


class NotAccepted(Exception):  # noqa: N818 - it is an answer
    """The other side did not take a parcel; the text is safe to keep."""


def send_due(sessions: sessionmaker[Session], table: type[P], deliver: Callable[[P], None]) -> int:
    """Try each parcel of a table that is due once, in order; return how many were taken.

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
        parcel = session.get_one(table, number)
        parcel.attempts += 1
        kind = table.__name__.lower()
        try:
            deliver(parcel)
        except NotAccepted as refusal:
            wait = min(2.0 ** min(parcel.attempts, 10), _LONGEST_WAIT_S)
            parcel.next_at = now_utc() + timedelta(seconds=wait)
            parcel.last_error = str(refusal)
            _log.warning(f"{kind} not accepted", number=number, attempt=parcel.attempts, error=parcel.last_error)
            return False
        failpoints.reach("outbox.delivered")
        parcel.sent_at = now_utc()
    _log.info(f"{kind} sent", number=number)
    return True
