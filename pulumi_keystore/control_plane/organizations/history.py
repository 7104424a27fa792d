"""The append-only history of an organization, and of the service as a whole (contract: History)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pulumi_keystore.answers import HistoryAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.organizations.tables import HistoryEntry, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.errors import TooManyRequests

SYSTEM: Final = "system"
"""Who has done what the service does by itself; nobody else is called so."""
SERVICE: Final = 0
"""Whose history it is that organizations came and went, and tokens: no organization has this number."""
COLUMNS: Final = {"Date & Time": "at", "User": "actor", "Action": "action", "Action Details": "detail"}
"""The columns of an export (contract: History), and the fields of an entry."""
_PAGE: Final = 1000


def append(session: Session, organization_id: int, actor: str, action: str, detail: str | None = None) -> None:
    """Write one entry; it becomes visible with the transaction of what it tells about."""
    session.add(HistoryEntry(at=now_utc(), organization_id=organization_id, actor=actor, action=action, detail=detail))


def require_changes_left(session: Session, organization: str, most: int) -> None:
    """Raise where people have changed so much of an organization in a day that one more would be too much.

    Each change leaves rows and mails for good: that is what is limited.

    Raises:
        TooManyRequests: There are `most` entries of the last 24 hours.

    """
    earliest = (
        select(HistoryEntry.at)
        .join(Organization, Organization.id == HistoryEntry.organization_id)
        .where(Organization.name == organization, HistoryEntry.actor != SYSTEM)
        .order_by(HistoryEntry.id.desc())
        .offset(most - 1)
        .limit(1)
    )
    at = session.scalar(earliest)
    if at is not None and at > now_utc() - timedelta(days=1):
        raise TooManyRequests(
            f"{most:,} changes of the organization {organization!r} were made in the last 24 hours",
            hint="make no more until tomorrow, or ask the provider, whose tokens are not limited",
        )


def moments(session: Session, organization_id: int, action: str, since: datetime) -> list[datetime]:
    """Return when something was done to an organization since a moment, the latest first."""
    mine = (HistoryEntry.organization_id == organization_id, HistoryEntry.action == action, HistoryEntry.at > since)
    return list(session.scalars(select(HistoryEntry.at).where(*mine).order_by(HistoryEntry.id.desc())))


def entries(session: Session, organization_id: int, limit: int, before: int | None = None) -> list[HistoryAnswer]:
    """Return the latest entries, or the latest before the entry of an id; oldest first."""
    mine = select(HistoryEntry).where(HistoryEntry.organization_id == organization_id)
    wanted = mine if before is None else mine.where(HistoryEntry.id < before)
    rows = session.scalars(wanted.order_by(HistoryEntry.id.desc()).limit(limit)).all()
    return [_describe(row) for row in reversed(rows)]


def pages(plane: ControlPlane, organization_id: int) -> Iterator[list[HistoryAnswer]]:
    """Yield all entries that there are by now, oldest first, a page at a time."""
    mine = select(HistoryEntry).where(HistoryEntry.organization_id == organization_id)
    with plane.transaction() as session:
        last = session.scalar(select(func.max(HistoryEntry.id)).where(HistoryEntry.organization_id == organization_id))
    after = 0
    while after < (last or 0):
        with plane.transaction() as session:
            wanted = mine.where(HistoryEntry.id > after, HistoryEntry.id <= last).order_by(HistoryEntry.id).limit(_PAGE)
            page = [_describe(row) for row in session.scalars(wanted)]
        yield page
        after = page[-1]["id"]


def _describe(row: HistoryEntry) -> HistoryAnswer:
    return {"id": row.id, "at": row.at.isoformat(), "actor": row.actor, "action": row.action, "detail": row.detail}


def to_csv(pages: Iterable[list[HistoryAnswer]]) -> Iterator[str]:
    """Yield entries as CSV (RFC 4180), with a header, a page at a time.

    A cell that a spreadsheet would take for a formula gets an apostrophe before it: names are other people's text.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for page in pages:
        for row in page:
            writer.writerow(
                [_plain(row["at"]), _plain(row["actor"]), _plain(row["action"]), _plain(row["detail"] or "")]
            )
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def to_json(pages: Iterable[list[HistoryAnswer]]) -> Iterator[str]:
    """Yield entries as a JSON array, a page at a time."""
    before = "[\n"
    for page in pages:
        yield before + ",\n".join(json.dumps(row, ensure_ascii=False) for row in page)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _plain(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
