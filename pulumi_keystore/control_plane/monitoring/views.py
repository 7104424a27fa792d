"""What may be seen of a keystore's health."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Integer, cast, func, select
from sqlalchemy.orm import Session

from pulumi_keystore.answers import HealthAnswer
from pulumi_keystore.causes import STEPS
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.monitoring import timeline
from pulumi_keystore.control_plane.monitoring.status import TESTS_AFTER_MIGRATION, Connection, Latest, Result, judge
from pulumi_keystore.control_plane.monitoring.tables import HealthHour, HealthSample, KeystoreHealth
from pulumi_keystore.control_plane.monitoring.timeline import Minutes, Reliability, Stretch
from pulumi_keystore.control_plane.organizations import keystores
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import iso, one_of
from pulumi_keystore.declarations.migration import State
from pulumi_keystore.declarations.monitor import Period
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import Conflict


def require_tested(session: Session, owner: Organization, name: str) -> Keystore:
    """Return a keystore that is tested each minute.

    Raises:
        Conflict: It is of a kind that is not.

    """
    row = keystores.find(session, owner, name)
    if row.kind != Kind.SELF_ADMINISTERED:
        raise Conflict(
            f"keystore: {name!r} is a {row.kind} keystore, and only self-administered ones are tested each minute",
            hint=f"ask for its connection now with `keystore status {owner.name}`",
        )
    return row


def connection(session: Session, plane: ControlPlane, keystore: Keystore, now: datetime) -> Connection:
    """Return what is shown of a keystore's connection."""
    return connections(session, plane, [keystore], now)[keystore.id]


def connections(
    session: Session, plane: ControlPlane, keystores: Sequence[Keystore], now: datetime
) -> dict[int, Connection]:
    """Return the same of many keystores by their numbers, with a few questions to the database for all of them."""
    numbers = [keystore.id for keystore in keystores]
    tested = select(KeystoreHealth).where(one_of(KeystoreHealth.keystore_id, numbers))
    rows = {row.keystore_id: row for row in session.scalars(tested)}
    migrated = _lately_migrated(session, plane, numbers, now)
    return {
        keystore.id: _judged(session, plane, keystore, rows.get(keystore.id), migrated.get(keystore.id), now)
        for keystore in keystores
    }


def _judged(
    session: Session,
    plane: ControlPlane,
    keystore: Keystore,
    row: KeystoreHealth | None,
    migrated: datetime | None,
    now: datetime,
) -> Connection:
    latest = None
    if row is not None and row.minute is not None and row.tested_at is not None and row.since is not None:
        result = Result(bool(row.online), row.reason, row.detail, row.warning, row.seconds or 0.0, cause=row.cause)
        latest = Latest(row.minute, result, row.since, row.tested_at)
    tests = 0
    if migrated is not None:
        since = select(HealthSample.minute).where(
            HealthSample.keystore_id == keystore.id, HealthSample.at >= migrated, HealthSample.at <= now
        )
        tests = len(session.scalars(since.limit(TESTS_AFTER_MIGRATION)).all())
    return judge(latest, _minutes(plane, row).at(now), keystore.created_at, migrated, tests)


def _lately_migrated(
    session: Session, plane: ControlPlane, numbers: Sequence[int], now: datetime
) -> dict[int, datetime]:
    """Return when the migration ended that made each the active one, unless that is long ago.

    If tests are lacking then, that is another matter.
    """
    long_ago = now - 2 * TESTS_AFTER_MIGRATION * timedelta(seconds=plane.settings.health_check_interval_s)
    ended = (
        select(Migration.destination_id, func.max(Migration.ended_at))
        .where(one_of(Migration.destination_id, numbers))
        .where(Migration.state == State.SUCCEEDED, Migration.ended_at >= long_ago)
        .group_by(Migration.destination_id)
    )
    return {number: at for number, at in session.execute(ended) if at is not None}


def ratios(session: Session, plane: ControlPlane, numbers: Sequence[int], now: datetime) -> dict[int, float]:
    """Return the reliability of the last hour of many keystores; those without a tested minute are missing."""
    last = func.floor(now.timestamp() / plane.settings.health_check_interval_s - KeystoreHealth.phase)
    query = (
        select(HealthSample.keystore_id, func.avg(cast(HealthSample.online, Integer)))
        .join(KeystoreHealth, KeystoreHealth.keystore_id == HealthSample.keystore_id)
        .where(one_of(HealthSample.keystore_id, numbers))
        .where(HealthSample.minute > last - timeline.HOUR, HealthSample.minute <= last)
        .group_by(HealthSample.keystore_id)
    )
    return {number: float(ratio) for number, ratio in session.execute(query)}


def reliability(
    session: Session, plane: ControlPlane, keystore: Keystore, now: datetime, period: Period = Period.HOUR
) -> Reliability:
    """Return the last hour, day or month of a keystore."""
    if period is Period.MONTH:
        since = now - timeline.SIX_HOURS_OF_A_MONTH * timeline.SIX_HOURS
        rows = session.scalars(
            select(HealthHour).where(HealthHour.keystore_id == keystore.id, HealthHour.hour >= since)
        )
        return timeline.month(
            {row.hour: Stretch(row.tested, row.online, row.slowest_s, _why(row)) for row in rows}, now
        )
    each, count = (1, timeline.HOUR) if period is Period.HOUR else (timeline.QUARTER, timeline.QUARTERS)
    minutes = _minutes(plane, session.get(KeystoreHealth, keystore.id))
    first = minutes.at(now) - each * count
    samples = session.scalars(
        select(HealthSample).where(HealthSample.keystore_id == keystore.id, HealthSample.minute > first)
    )
    tests = {row.minute: Stretch(1, int(row.online), row.seconds, _why(row)) for row in samples}
    return timeline.reliability(tests, minutes, now, each, count)


def _why(row: HealthSample | HealthHour) -> str | None:
    cause = row.cause.replace("-", " ") if row.cause else None
    return ", ".join(filter(None, (row.reason, cause))) or None


def describe(
    session: Session, plane: ControlPlane, keystore: Keystore, now: datetime, period: Period = Period.HOUR
) -> HealthAnswer:
    """Return status, reason, detail, since when, and the reliability of the last hour, day or month."""
    shown = connection(session, plane, keystore, now)
    past = reliability(session, plane, keystore, now, period)
    row = session.get(KeystoreHealth, keystore.id)
    return {
        "keystore": keystore.name,
        "status": shown.status,
        "reason": shown.reason,
        "detail": shown.detail,
        "cause": shown.cause,
        "steps": list(STEPS[shown.cause]) if shown.cause else [],
        "warning": shown.warning,
        "since": shown.since.isoformat() if shown.since else None,
        "for_s": round(max((now - shown.since).total_seconds(), 0.0)) if shown.since else None,
        "tested_at": row.tested_at.isoformat() if row and row.tested_at else None,
        "duration_s": row.seconds if row else None,
        "server_certificate_not_after": iso(row.server_not_after) if row else None,
        "reliability": {
            "period": period,
            "ratio": round(past.ratio, 4) if past.ratio is not None else None,
            "begin": past.begin.isoformat(),
            "bucket_s": past.bucket_s,
            "buckets": list(past.buckets),
            "details": [str(tests) for tests in past.tests],
            "slowest_ms": [None if each.slowest_s is None else round(each.slowest_s * 1000) for each in past.tests],
        },
    }


def _minutes(plane: ControlPlane, row: KeystoreHealth | None) -> Minutes:
    return Minutes(row.phase if row else 0.0, plane.settings.health_check_interval_s)
