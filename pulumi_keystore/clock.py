"""The one clock of the wall, so that a test can show another time to everything that reads it."""

from __future__ import annotations

from datetime import UTC, datetime


def now_utc() -> datetime:
    """Return the present moment, with its time zone."""
    return datetime.now(UTC)
