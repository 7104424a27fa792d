"""The append-only history of an organization, and of the service as a whole (contract: History)."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.answers import HistoryAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.organizations.tables import HistoryEntry, Organization
from pulumi_keystore.errors import TooManyRequests

SYSTEM: Final = "system"
"""Who has done what the service does by itself; nobody else is called so."""
SERVICE: Final = 0
"""Whose history it is that organizations came and went, and tokens: no organization has this number."""
COLUMNS: Final = ("at", "actor", "action", "detail")


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


def entries(session: Session, organization_id: int, limit: int | None = 1000) -> list[HistoryAnswer]:
    """Return the latest entries, or all where there is no limit; oldest first."""
    rows = session.scalars(
        select(HistoryEntry)
        .where(HistoryEntry.organization_id == organization_id)
        .order_by(HistoryEntry.id.desc())
        .limit(limit)
    ).all()
    return [
        {"id": row.id, "at": row.at.isoformat(), "actor": row.actor, "action": row.action, "detail": row.detail}
        for row in reversed(rows)
    ]


def to_csv(rows: list[HistoryAnswer]) -> str:
    """Return entries as CSV (RFC 4180), with a header.

    A cell that a spreadsheet would take for a formula gets an apostrophe before it: names are other people's text.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_plain(row[column] or "") for column in COLUMNS])
    return text.getvalue()


def to_json(rows: list[HistoryAnswer]) -> str:
    """Return entries as a JSON array."""
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _plain(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
