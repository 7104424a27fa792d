"""What may be seen of migrations: progress, rate, remaining time, and the way back."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from pulumi_keystore.answers import MigrationAnswer
from pulumi_keystore.control_plane.keystores.tables import CleanUp, CleanUpState, Side
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.organizations.tables import Organization
from pulumi_keystore.control_plane.runtime.tables import iso
from pulumi_keystore.declarations.migration import Phase, State
from pulumi_keystore.errors import NotFound

USUAL_RATE: Final = 600
"""Keys a second that two servers on one small machine reach; the estimate in previews."""


def find(session: Session, owner: Organization, migration_id: str) -> Migration:
    """Return a migration of an organization.

    Raises:
        NotFound: It has no such migration.

    """
    row = session.get(Migration, migration_id) if migration_id.isprintable() else None
    if row is None or row.organization_id != owner.id:
        raise NotFound(
            f"the organization {owner.name!r} has no migration {migration_id[:40]!r}",
            hint=f"list them with `keystore migration list {owner.name}`",
        )
    return row


def list_page(
    session: Session, owner: Organization, now: datetime, limit: int, after: str = ""
) -> list[MigrationAnswer]:
    """Return the migrations of an organization, the latest first; those after the one of an id.

    Raises:
        NotFound: It has no migration of that id.

    """
    order = (Migration.started_at, Migration.id)
    query = select(Migration).where(Migration.organization_id == owner.id)
    if after:
        last = find(session, owner, after)
        query = query.where(tuple_(*order) < tuple_(last.started_at, last.id))
    rows = session.scalars(query.order_by(*(column.desc() for column in order)).limit(limit))
    return [describe(session, owner, row, now) for row in rows]


def describe(session: Session, owner: Organization, row: Migration, now: datetime) -> MigrationAnswer:
    """Return a migration with its progress: keys copied and verified, rate (keys/s), remaining seconds.

    The rate is that of the phase under way; of a migration that has ended it is keys copied and read back in a second.
    """
    copying = _seconds(row.copy_started_at, row.copy_ended_at, now)
    verifying = _seconds(row.verify_started_at, row.verify_ended_at, now)
    if row.state != State.RUNNING:
        rate = _rate(min(row.done, row.verified) if row.state == State.SUCCEEDED else row.done, copying + verifying)
    else:
        rate = _rate(row.verified, verifying) if row.phase == Phase.VERIFY else _rate(row.done, copying)
    remaining_s = None
    if rate and row.state == State.RUNNING:
        # Reading back is quicker than copying; as long as nothing is known of it, it counts as much.
        left = max(row.total - row.verified, 0) + (max(row.total - row.done, 0) if row.phase == Phase.COPY else 0)
        remaining_s = round(left / rate, 1)
    kept = retained(session, row, now)
    pending = select(CleanUp.side).where(
        CleanUp.migration_id == row.id, CleanUp.state == CleanUpState.PENDING, CleanUp.side != Side.PROOF
    )
    return {
        "organization": owner.name,
        "id": row.id,
        "source": row.source,
        "destination": row.destination,
        "mode": row.mode,
        "state": row.state,
        "phase": row.phase,
        "ending": row.ending,
        "detail": row.detail,
        "total": row.total,
        "done": row.done,
        "verified": row.verified,
        "requested_by": row.requested_by,
        "cancel_by": row.cancel_by,
        "started_at": row.started_at.isoformat(),
        "ended_at": iso(row.ended_at),
        "receipt": row.receipt,
        "rate": rate,
        "remaining_s": remaining_s,
        "clean_up_pending": list(session.scalars(pending)),
        "retained_until": kept.next_at.isoformat() if kept else None,
    }


def retained(session: Session, row: Migration, now: datetime) -> CleanUp | None:
    """Return the clean-up that has not begun to empty a migration's source: as long there is a way back."""
    query = select(CleanUp).where(
        CleanUp.migration_id == row.id,
        CleanUp.side == Side.SOURCE,
        CleanUp.state == CleanUpState.PENDING,
        CleanUp.attempts == 0,
        CleanUp.next_at > now,
    )
    return session.scalar(query) if row.state == State.SUCCEEDED else None


def _seconds(begin: datetime | None, end: datetime | None, now: datetime) -> float:
    return max(((end or now) - begin).total_seconds(), 0.0) if begin is not None else 0.0


def _rate(keys: int, seconds: float) -> float | None:
    return round(keys / max(seconds, 0.001), 1) if keys else None
