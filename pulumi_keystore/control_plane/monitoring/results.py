"""The tests of every minute in the database: whose turn it is, what was found, and what that makes us tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Float, Numeric, cast, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.monitoring import alerts, holdings, timeline
from pulumi_keystore.control_plane.monitoring.alerts import Alert
from pulumi_keystore.control_plane.monitoring.status import TESTS_AFTER_MIGRATION, Connection, Latest, Result, judge
from pulumi_keystore.control_plane.monitoring.timeline import Minutes, Reliability, is_due
from pulumi_keystore.control_plane.notifications import message, outbox, webhooks
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import (
    HealthMonitor,
    HealthSample,
    Keystore,
    KeystoreHealth,
    Migration,
    Organization,
)
from pulumi_keystore.declarations.monitor import Timings

KEPT: Final = timedelta(days=2)
"""How long single minutes are kept."""
_ALMOST: Final = 0.9
"""What of a minute has to have passed: tests are never exactly a minute apart."""
_GOLDEN: Final = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly however many there are."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A keystore that is to be tested for a minute, and when that began."""

    keystore_id: int
    minute: int
    at: datetime


def claim(session: Session, who: str, now: datetime, length_s: float, lease_s: float, most: int) -> list[Turn]:
    """Take keystores whose test is due, for nobody else to take them meanwhile; at most so many.

    Args:
        session: A transaction; it has to be committed before the tests begin.
        who: Name of this process.
        now: The moment.
        length_s: Length of a minute in seconds.
        lease_s: Seconds after which somebody else may take a keystore whose result has not come.
        most: How many.

    """
    new = select(Keystore.id, func.mod(cast(Keystore.id * _GOLDEN, Numeric), 1)).where(
        Keystore.kind == "self-administered", ~select(1).where(KeystoreHealth.keystore_id == Keystore.id).exists()
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
        .values(claimed_by=who, claimed_until=now + timedelta(seconds=lease_s))
        .returning(KeystoreHealth.keystore_id, KeystoreHealth.phase)
    )
    return [Turn(number, Minutes(phase, length_s).at(now), now) for number, phase in rows]


def release(session: Session, who: str) -> None:
    """Free what a process has claimed that has ended: others need not wait, and what it found later counts no more."""
    mine = update(KeystoreHealth).where(KeystoreHealth.claimed_by == who)
    session.execute(mine.values(claimed_by=None, claimed_until=None))


def record(
    session: Session,
    who: str,
    results: Mapping[Turn, Result | None],
    length_s: float,
    ledger: Mapping[int, int] = MappingProxyType({}),
) -> list[Alert]:
    """Write down what tests found, with the mails that follow from it; return the alerts.

    A result of a keystore that somebody else has taken meanwhile is dropped, as is one for a minute that has a result.
    None stands for a test that could not be made: the keystore is free for another one. `ledger` tells how many keys
    should have been there before the tests.
    """
    told: list[Alert] = []
    turns = {turn.keystore_id: turn for turn in results}
    locked = (
        select(KeystoreHealth)
        .where(KeystoreHealth.keystore_id.in_(turns), KeystoreHealth.claimed_by == who)
        .order_by(KeystoreHealth.keystore_id)
        .with_for_update()
    )
    mine = {row.keystore_id: row for row in session.scalars(locked)}
    monitored = _monitored(session, list(mine))
    samples = []
    for number, row in mine.items():
        turn = turns[number]
        result = results[turn]
        row.claimed_by = row.claimed_until = None
        if result is None or not is_due(turn.minute, row.minute):
            continue
        passed = _passed(row.tested_at, turn.at, length_s)
        samples.append({"keystore_id": number, "minute": turn.minute, "online": result.online, "at": turn.at})
        same = (row.online, row.reason) == (result.online, result.reason)
        row.minute, row.tested_at = turn.minute, turn.at
        row.since = row.since if same and row.since else turn.at
        row.online, row.reason, row.detail = result.online, result.reason, result.detail
        row.seconds = round(result.seconds, 3)
        row.warning = "; ".join(filter(None, (result.warning, holdings.compare(session, row, result, ledger)))) or None
        if number in monitored:
            alert = _advance(session, monitored[number], result, passed)
            told += [alert] if alert else []
    if samples:
        new = insert(HealthSample).values(samples)
        # After the clock was put back a minute comes once more: the later test is what is known of it.
        session.execute(
            new.on_conflict_do_update(
                index_elements=["keystore_id", "minute"], set_={"online": new.excluded.online, "at": new.excluded.at}
            )
        )
    return told


@dataclass(frozen=True, slots=True)
class _Monitored:
    monitor: HealthMonitor
    keystore: Keystore
    organization: Organization


def _monitored(session: Session, numbers: Sequence[int]) -> dict[int, _Monitored]:
    """Return the monitors of those keystores that are in use: what happens to others is no outage."""
    query = (
        select(HealthMonitor, Keystore, Organization)
        .join(Keystore, Keystore.id == HealthMonitor.keystore_id)
        .join(Organization, Organization.active_keystore_id == Keystore.id)
        .where(HealthMonitor.keystore_id.in_(numbers))
        .order_by(HealthMonitor.keystore_id)
        .with_for_update(of=HealthMonitor)
    )
    return {row[0].keystore_id: _Monitored(*row) for row in session.execute(query)}


def _advance(session: Session, watched: _Monitored, result: Result, passed: int) -> Alert | None:
    monitor, keystore, owner = watched.monitor, watched.keystore, watched.organization
    timings = Timings(monitor.offline_minutes, monitor.repeat_hours * 60, monitor.online_minutes)
    before = alerts.State.from_document(monitor.alert)
    after, alert = alerts.advance(before, result.online, timings, passed)
    if after != before:
        monitor.alert = after.to_document()
    if alert is None:
        return None
    # The number of an incident is never used again, so nothing is left twice.
    event = f"health-{keystore.id}-{monitor.created_at:%Y%m%d%H%M%S%f}.{after.incident}.{after.mails}"
    label = f"{keystore.name} ({keystore.address})"
    if alert is Alert.FAILURE:
        minutes = after.failing or 0
        reason, detail = result.reason or "", result.detail or ""
        letter = message.connection_failure(owner.name, label, reason, detail, minutes, after.mails)
    else:
        minutes, reason, detail = (before.failing or 0) + 1 - timings.online, "", ""
        letter = message.connection_resumed(owner.name, label, minutes)
    outbox.put_to_each(session, event, monitor.recipients, letter)
    if monitor.webhook_sealed:
        body = {
            "event": f"keystore.{letter.kind}",
            "organization": owner.name,
            "keystore": keystore.name,
            "address": keystore.address,
            "reason": reason or None,
            "detail": detail or None,
            "minutes": minutes,
            "at": now_utc().isoformat(),
        }
        webhooks.put(session, f"{event}.{letter.kind}", monitor.webhook_sealed, body)
    return alert


def _passed(before: datetime | None, now: datetime, length_s: float) -> int:
    """Return 0 for a test that is less than a minute after the last one, a late one, and 1 otherwise."""
    elapsed_s = (now - before).total_seconds() if before else length_s
    return 0 if 0 <= elapsed_s < _ALMOST * length_s else 1


def forget_old(session: Session, now: datetime) -> None:
    """Remove single minutes that nobody asks for any more."""
    session.execute(delete(HealthSample).where(HealthSample.at < now - KEPT))


def connection(session: Session, plane: ControlPlane, keystore: Keystore, now: datetime) -> Connection:
    """Return what is shown of a keystore's connection."""
    row = session.get(KeystoreHealth, keystore.id)
    minutes = _minutes(plane, row)
    latest = None
    if row is not None and row.minute is not None and row.tested_at is not None and row.since is not None:
        result = Result(bool(row.online), row.reason, row.detail, row.warning, row.seconds or 0.0)
        latest = Latest(row.minute, result, row.since, row.tested_at)
    migrated = session.scalar(
        select(Migration.ended_at)
        .where(Migration.destination_id == keystore.id, Migration.state == "succeeded")
        .order_by(Migration.ended_at.desc())
        .limit(1)
    )
    tests = 0
    if migrated is not None:
        since = select(HealthSample.minute).where(
            HealthSample.keystore_id == keystore.id, HealthSample.at >= migrated, HealthSample.at <= now
        )
        tests = len(session.scalars(since.limit(TESTS_AFTER_MIGRATION)).all())
        if now - migrated > 2 * TESTS_AFTER_MIGRATION * timedelta(seconds=minutes.length_s):
            migrated = None  # long ago: if tests are lacking, that is another matter
    return judge(latest, minutes.at(now), keystore.created_at, migrated, tests)


def reliability(session: Session, plane: ControlPlane, keystore: Keystore, now: datetime) -> Reliability:
    """Return the last hour of a keystore."""
    minutes = _minutes(plane, session.get(KeystoreHealth, keystore.id))
    first = minutes.at(now) - timeline.HOUR
    rows = session.execute(
        select(HealthSample.minute, HealthSample.online).where(
            HealthSample.keystore_id == keystore.id, HealthSample.minute > first
        )
    )
    return timeline.reliability(dict(rows.tuples().all()), minutes, now)


def describe(session: Session, plane: ControlPlane, keystore: Keystore, now: datetime) -> dict[str, Any]:
    """Return status, reason, detail, since when, and the reliability of the last hour."""
    shown = connection(session, plane, keystore, now)
    hour = reliability(session, plane, keystore, now)
    row = session.get(KeystoreHealth, keystore.id)
    return {
        "keystore": keystore.name,
        "status": shown.status,
        "reason": shown.reason,
        "detail": shown.detail,
        "warning": shown.warning,
        "since": shown.since.isoformat() if shown.since else None,
        "for_s": round(max((now - shown.since).total_seconds(), 0.0)) if shown.since else None,
        "tested_at": row.tested_at.isoformat() if row and row.tested_at else None,
        "test_s": row.seconds if row else None,
        "reliability": {
            "share": round(hour.share, 4) if hour.share is not None else None,
            "begin": hour.begin.isoformat(),
            "bucket_s": plane.settings.minute_s,
            "buckets": list(hour.buckets),
        },
    }


def _minutes(plane: ControlPlane, row: KeystoreHealth | None) -> Minutes:
    return Minutes(row.phase if row else 0.0, plane.settings.minute_s)
