"""Which process tests which keystore in which minute."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Float, Numeric, cast, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.monitoring import timeline
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.monitoring.timeline import Minutes
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.declarations.names import Kind

_GOLDEN: Final = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly however many there are."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A keystore that is to be tested for a minute, and when that began."""

    keystore_id: int
    minute: int
    at: datetime


def claim(session: Session, instance: str, now: datetime, length_s: float, lease_s: float, most: int) -> list[Turn]:
    """Take keystores whose test is due, for nobody else to take them meanwhile; at most so many.

    Args:
        session: A transaction; it has to be committed before the tests begin.
        instance: Name of this process.
        now: The moment.
        length_s: Length of a minute in seconds.
        lease_s: Seconds after which somebody else may take a keystore whose result has not come.
        most: How many.

    """
    new = select(Keystore.id, func.mod(cast(Keystore.id * _GOLDEN, Numeric), 1)).where(
        Keystore.kind == Kind.SELF_ADMINISTERED, ~select(1).where(KeystoreHealth.keystore_id == Keystore.id).exists()
    )
    session.execute(insert(KeystoreHealth).from_select(["keystore_id", "phase"], new).on_conflict_do_nothing())
    minute = func.floor(literal(now.timestamp() / length_s, Float) - KeystoreHealth.phase)
    last, until = KeystoreHealth.minute, KeystoreHealth.claimed_until
    due = (
        select(KeystoreHealth.keystore_id)
        # As `is_due` has it; and a claim that lies far ahead was made before the clock was put back.
        .where(or_(last.is_(None), minute > last, minute < last - timeline.PUT_BACK))
        .where(or_(until.is_(None), until <= now, until > now + timedelta(seconds=lease_s)))
        .order_by(KeystoreHealth.minute.nulls_first())
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(
        update(KeystoreHealth)
        .where(KeystoreHealth.keystore_id.in_(due))
        .values(claimed_by=instance, claimed_until=now + timedelta(seconds=lease_s))
        .returning(KeystoreHealth.keystore_id, KeystoreHealth.phase)
    )
    return [Turn(number, Minutes(phase, length_s).at(now), now) for number, phase in rows]


def release(session: Session, instance: str) -> None:
    """Free what a process has claimed that has ended: others need not wait, and what it found later counts no more."""
    mine = update(KeystoreHealth).where(KeystoreHealth.claimed_by == instance)
    session.execute(mine.values(claimed_by=None, claimed_until=None))
