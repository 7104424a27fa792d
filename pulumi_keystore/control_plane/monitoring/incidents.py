"""Incidents: the times in which a keystore was offline, why, and how often somebody was told."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from pulumi_keystore.answers import IncidentAnswer
from pulumi_keystore.control_plane.monitoring.status import Result
from pulumi_keystore.control_plane.monitoring.tables import Incident
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.control_plane.runtime.tables import iso, one_of
from pulumi_keystore.declarations.monitor import ONLINE_MINUTES

KEPT: Final = timedelta(days=90)
"""How long incidents are kept."""


def latest(session: Session, keystores: Collection[int]) -> dict[int, Incident]:
    """Return the latest incident of each of some keystores."""
    if not keystores:
        return {}
    numbers = select(func.max(Incident.id)).where(one_of(Incident.keystore_id, list(keystores)))
    rows = session.scalars(select(Incident).where(Incident.id.in_(numbers.group_by(Incident.keystore_id))))
    return {row.keystore_id: row for row in rows}


def note(
    session: Session, keystore: int, before: Incident | None, result: Result, at: datetime, minute: timedelta
) -> None:
    """Begin, continue or end an incident after one more test.

    A keystore that fails again within the minutes after which it counts as back has not been back: that is one
    incident, however often it comes and goes.

    Args:
        session: A transaction.
        keystore: Its number.
        before: Its latest incident.
        result: What the test has found.
        at: When.
        minute: How long a minute is.

    """
    is_open = before is not None and before.ended_at is None
    if result.online:
        if before is not None and is_open:
            before.ended_at = at
        return
    if before is not None and (is_open or _is_soon(before.ended_at, at, ONLINE_MINUTES * minute)):
        before.ended_at = None
        return
    row = Incident(keystore_id=keystore, begun_at=at, reason=result.reason, cause=result.cause, detail=result.detail)
    session.add(row)
    session.flush()


def _is_soon(ended: datetime | None, at: datetime, most: timedelta) -> bool:
    return ended is not None and timedelta(0) <= at - ended < most


def count_alert(session: Session, keystore: int) -> None:
    """Note that somebody was told about the latest incident of a keystore."""
    number = select(func.max(Incident.id)).where(Incident.keystore_id == keystore).scalar_subquery()
    session.execute(update(Incident).where(Incident.id == number).values(alerts=Incident.alerts + 1))


def of_keystore(
    session: Session, keystore: Keystore, now: datetime, limit: int, before: int | None = None
) -> list[IncidentAnswer]:
    """Return the incidents of a keystore that are remembered, the latest first; those before the one of an id."""
    mine = select(Incident).where(Incident.keystore_id == keystore.id)
    wanted = mine if before is None else mine.where(Incident.id < before)
    rows = wanted.order_by(Incident.id.desc()).limit(limit)
    return [
        {
            "id": row.id,
            "begun_at": row.begun_at.isoformat(),
            "ended_at": iso(row.ended_at),
            "duration_s": round(max(((row.ended_at or now) - row.begun_at).total_seconds(), 0.0)),
            "reason": row.reason,
            "cause": row.cause,
            "detail": row.detail,
            "alerts": row.alerts,
        }
        for row in session.scalars(rows)
    ]


def forget_old(session: Session, now: datetime) -> None:
    """Remove incidents that ended long ago."""
    session.execute(delete(Incident).where(Incident.begun_at < now - KEPT, Incident.ended_at.is_not(None)))
