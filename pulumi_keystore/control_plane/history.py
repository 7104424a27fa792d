"""The append-only history of an organization (contract: History)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.certificate import now_utc
from pulumi_keystore.control_plane.models import HistoryEntry, as_document

SYSTEM = "system"


def append(session: Session, organization_id: int, actor: str, action: str, detail: str | None = None) -> None:
    """Write one entry; it becomes visible with the transaction of what it tells about."""
    session.add(HistoryEntry(at=now_utc(), organization_id=organization_id, actor=actor, action=action, detail=detail))


def entries(session: Session, organization_id: int, limit: int = 1000) -> list[dict[str, Any]]:
    """Return the latest entries, oldest first."""
    rows = session.scalars(
        select(HistoryEntry)
        .where(HistoryEntry.organization_id == organization_id)
        .order_by(HistoryEntry.id.desc())
        .limit(limit)
    ).all()
    return [as_document(row, "id", "at", "actor", "action", "detail") for row in reversed(rows)]
