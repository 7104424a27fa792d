"""The durable outbox: a message is written in the transaction of what it tells about, and sent until it is accepted.

A mail keeps its Message-ID through every attempt, so that a doubtful repeat is recognised as one mail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, TypeVar

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, sessionmaker

from pulumi_keystore import failpoints
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.notifications.tables import Hook, Mail, OutboxMessage
from pulumi_keystore.control_plane.runtime.background import Turns
from pulumi_keystore.control_plane.runtime.tables import is_due

_LONGEST_WAIT_S: Final = 900
_GIVEN_UP_AFTER: Final = timedelta(days=5)
"""As long as mail servers try (RFC 5321 §4.5.4.1)."""
AT_A_TIME: Final = 8
"""Organizations whose messages are sent side by side. Those of one are sent one after the other, in order; and one
whose servers let us wait holds up no other, however many messages and receivers it has, and whoever they are."""
_MOST_OF_ONE: Final = 100
"""How many messages of one organization are looked at in a round."""
KEPT: Final = timedelta(days=30)
"""How long what was sent, or given up, is kept."""
_log = structlog.get_logger(__name__)
P = TypeVar("P", bound=OutboxMessage)


class NotAccepted(Exception):  # noqa: N818 - it is an answer
    """The other side did not take a message; the text is safe to keep."""


class Undeliverable(NotAccepted):
    """It never will."""


class ServerAway(NotAccepted):
    """The server by which all of them go is not there: none of the others needs to be tried in this round."""


def send_due(sessions: sessionmaker[Session], table: type[P], deliver: Callable[[P], None], turns: Turns) -> int:
    """Try the messages of a table that are due, those of each organization in order; return how many a turn took.

    Each is tried once at the most. What there is no time for is tried the next time; and so is the rest where the
    server by which all go is not there, which may take long to find out.

    Args:
        sessions: Where the outbox is.
        table: What is sent.
        deliver: Hands one over, or raises `NotAccepted`.
        turns: Those of the organizations: one that is busy since an earlier round is left alone.

    """
    with sessions() as session:
        due_now = is_due(table.next_at, now_utc(), _LONGEST_WAIT_S)
        waits = (table.sent_at.is_(None), table.given_up_at.is_(None), due_now)
        turn = func.row_number().over(partition_by=table.owner(), order_by=table.id)
        waiting = select(table.owner().label("owner"), table.id, turn.label("turn")).where(*waits).subquery()
        first = select(waiting.c.owner, waiting.c.id).where(waiting.c.turn <= _MOST_OF_ONE).order_by(waiting.c.id)
        due = session.execute(first).all()
    messages = ((owner, number) for owner, number in due)
    away = threading.Event()

    def handed_over(message: P) -> None:
        try:
            deliver(message)
        except ServerAway:
            away.set()
            raise

    def taken(number: int) -> bool:
        return not away.is_set() and _try(sessions, table, number, handed_over)

    return sum(turns.take(messages, taken))


def forget_old(session: Session, now: datetime) -> None:
    """Remove what was sent or given up long ago."""
    for table in (Mail, Hook):
        ended = func.coalesce(table.sent_at, table.given_up_at)
        session.execute(delete(table).where(ended < now - KEPT))


def _try(sessions: sessionmaker[Session], table: type[P], number: int, deliver: Callable[[P], None]) -> bool:
    kind = table.__name__.lower()
    # No transaction is open while a foreign server is waited for.
    with sessions() as session:
        message = session.get_one(table, number)
        session.expunge(message)
    refusal, final = None, False
    try:
        deliver(message)
    except NotAccepted as refused:
        refusal, final = str(refused), isinstance(refused, Undeliverable)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one message, the others are sent
        _log.exception(f"{kind} cannot be sent", number=number)
        refusal = f"internal error ({type(error).__name__})"
    else:
        failpoints.reach("outbox.delivered")
    with sessions.begin() as session:
        row = session.get_one(table, number, with_for_update=True)
        row.attempts += 1
        if refusal is None:
            row.sent_at = now_utc()
        else:
            row.next_at = now_utc() + timedelta(seconds=min(2.0 ** min(row.attempts, 10), _LONGEST_WAIT_S))
            row.last_error = refusal
            if final or now_utc() - row.created_at > _GIVEN_UP_AFTER:
                row.given_up_at = now_utc()
        attempts, given_up = row.attempts, row.given_up_at is not None
    if refusal is None:
        _log.info(f"{kind} sent", number=number)
        return True
    _log.warning(f"{kind} not accepted", number=number, attempt=attempts, error=refusal, given_up=given_up)
    return False
