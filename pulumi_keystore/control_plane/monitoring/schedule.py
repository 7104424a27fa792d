"""Which process tests which keystore in which minute."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Float, Numeric, cast, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from pulumi_keystore.control_plane.monitoring import timeline
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.monitoring.timeline import Minutes
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.declarations.names import Kind

_GOLDEN: Final = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly however many there are."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A keystore that is to be tested for a minute, and when that began; `asked`: because someone wants it now."""

    keystore_id: int
    minute: int
    at: datetime
    asked: bool = False


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
    _add_new(session)
    minute = func.floor(literal(now.timestamp() / length_s, Float) - KeystoreHealth.phase)
    last = KeystoreHealth.minute
    due = (
        select(KeystoreHealth.keystore_id)
        # As `is_due` has it.
        .where(or_(last.is_(None), minute > last, minute < last - timeline.PUT_BACK))
        .where(_free(now, lease_s))
        .order_by(KeystoreHealth.minute.nulls_first())
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(_claimed(instance, now, lease_s).where(KeystoreHealth.keystore_id.in_(due)))
    return [Turn(number, Minutes(phase, length_s).at(now), now) for number, phase in rows]


def take(
    session: Session, instance: str, now: datetime, length_s: float, lease_s: float, keystore_id: int
) -> Turn | None:
    """Take one keystore, due or not, because someone asks; None while a test of it is under way. Else as `claim`."""
    _add_new(session)
    wanted = _claimed(instance, now, lease_s).where(KeystoreHealth.keystore_id == keystore_id, _free(now, lease_s))
    row = session.execute(wanted).one_or_none()
    return None if row is None else Turn(row[0], Minutes(row[1], length_s).at(now), now, asked=True)


def _add_new(session: Session) -> None:
    """Have those tested that were registered since."""
    new = select(Keystore.id, func.mod(cast(Keystore.id * _GOLDEN, Numeric), 1)).where(
        Keystore.kind == Kind.SELF_ADMINISTERED, ~select(1).where(KeystoreHealth.keystore_id == Keystore.id).exists()
    )
    session.execute(insert(KeystoreHealth).from_select(["keystore_id", "phase"], new).on_conflict_do_nothing())


def _free(now: datetime, lease_s: float) -> ColumnElement[bool]:
    """Return the condition that no test is under way; a claim that lies far ahead is older than the clock's change."""
    until = KeystoreHealth.claimed_until
    return or_(until.is_(None), until <= now, until > now + timedelta(seconds=lease_s))


def _claimed(instance: str, now: datetime, lease_s: float) -> ReturningUpdate[int, float]:
    """Return the statement that claims keystores, and returns number and phase of each."""
    return (
        update(KeystoreHealth)
        .values(claimed_by=instance, claimed_until=now + timedelta(seconds=lease_s))
        .returning(KeystoreHealth.keystore_id, KeystoreHealth.phase)
    )


def release(session: Session, instance: str) -> None:
    """Free what a process has claimed that has ended: others need not wait, and what it found later counts no more."""
    mine = update(KeystoreHealth).where(KeystoreHealth.claimed_by == instance)
    session.execute(mine.values(claimed_by=None, claimed_until=None))
