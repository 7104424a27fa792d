"""What may be seen of a keystore's health."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.answers import HealthAnswer
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.monitoring import timeline
from pulumi_keystore.control_plane.monitoring.status import TESTS_AFTER_MIGRATION, Connection, Latest, Result, judge
from pulumi_keystore.control_plane.monitoring.tables import HealthSample, KeystoreHealth
from pulumi_keystore.control_plane.monitoring.timeline import Minutes, Reliability
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.migration import State


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
        .where(Migration.destination_id == keystore.id, Migration.state == State.SUCCEEDED)
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


def describe(session: Session, plane: ControlPlane, keystore: Keystore, now: datetime) -> HealthAnswer:
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
        "duration_s": row.seconds if row else None,
        "reliability": {
            "ratio": round(hour.ratio, 4) if hour.ratio is not None else None,
            "begin": hour.begin.isoformat(),
            "bucket_s": plane.settings.health_check_interval_s,
            "buckets": list(hour.buckets),
        },
    }


def _minutes(plane: ControlPlane, row: KeystoreHealth | None) -> Minutes:
    return Minutes(row.phase if row else 0.0, plane.settings.health_check_interval_s)
