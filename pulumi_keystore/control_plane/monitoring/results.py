"""The tests of every minute in the database: whose turn it is, what was found, and what that makes us tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import and_, case, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import telling
from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.monitoring import alerts, holdings, incidents, messages
from pulumi_keystore.control_plane.monitoring.alerts import Alert
from pulumi_keystore.control_plane.monitoring.schedule import Turn
from pulumi_keystore.control_plane.monitoring.status import Result
from pulumi_keystore.control_plane.monitoring.tables import HealthHour, HealthSample, KeystoreHealth
from pulumi_keystore.control_plane.monitoring.timeline import is_due
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.declarations.monitor import Timings

KEPT: Final = timedelta(days=2)
"""How long single minutes are kept."""
HOURS_KEPT: Final = timedelta(days=31)
"""How long the hours are kept that they are counted in."""
_ALMOST: Final = 0.9
"""What of a minute has to have passed: tests are never exactly a minute apart."""


def record(
    session: Session,
    instance: str,
    results: Mapping[Turn, Result | None],
    length_s: float,
    ledger: Mapping[int, int] = MappingProxyType({}),
) -> list[Alert]:
    """Write down what tests found, with the mails that follow from it; return the alerts.

    A result of a keystore that somebody else has taken meanwhile is dropped, as is one for a minute that has a result.
    One that someone has asked for is what is known of the keystore from then on, also in such a minute; only timeline
    and alerts, which count minutes, do without it. None stands for a test that could not be made: the keystore is free
    for another one. `ledger` tells how many keys should have been there before the tests.
    """
    told: list[Alert] = []
    turns = {turn.keystore_id: turn for turn in results}
    # Keystores first, as who removes one does: a removal under way would wait for us, and we for it.
    keystores = select(Keystore.id).where(Keystore.id.in_(turns)).order_by(Keystore.id)
    session.execute(keystores.with_for_update(read=True, key_share=True))
    locked = (
        select(KeystoreHealth)
        .where(KeystoreHealth.keystore_id.in_(turns), KeystoreHealth.claimed_by == instance)
        .order_by(KeystoreHealth.keystore_id)
        .with_for_update()
    )
    mine = {row.keystore_id: row for row in session.scalars(locked)}
    monitored = _monitored(session, list(mine))
    suspects = [number for number, row in mine.items() if row.online is False or _is_offline(results[turns[number]])]
    known = incidents.latest(session, suspects)
    samples: list[dict[str, Any]] = []
    for number, row in mine.items():
        turn = turns[number]
        result = results[turn]
        row.claimed_by = row.claimed_until = None
        due = is_due(turn.minute, row.minute)
        if result is None or not (due or turn.asked):
            continue
        if number in suspects:
            incidents.note(session, number, known.get(number), result, turn.at, timedelta(seconds=length_s))
        same = (row.online, row.reason) == (result.online, result.reason)
        row.tested_at = turn.at
        row.since = row.since if same and row.since else turn.at
        row.online, row.reason, row.detail, row.cause = result.online, result.reason, result.detail, result.cause
        row.seconds = round(result.seconds, 3)
        if result.certificate is not None:
            row.server_not_before = result.certificate.not_before
            row.server_not_after = result.certificate.not_after
        row.warning = "; ".join(filter(None, (result.warning, holdings.compare(session, row, result, ledger)))) or None
        if not due:
            continue
        row.minute = turn.minute
        samples.append(_sample(turn, result))
        if number in monitored:
            passed = _passed(monitored[number].counted_at, turn.at, length_s)
            alert = _advance(session, monitored[number], result, passed)
            told += [alert] if alert else []
    if samples:
        _keep(session, samples)
    return told


def _is_offline(result: Result | None) -> bool:
    return result is not None and not result.online


def _sample(turn: Turn, result: Result) -> dict[str, Any]:
    return {
        "keystore_id": turn.keystore_id,
        "minute": turn.minute,
        "online": result.online,
        "at": turn.at,
        "reason": result.reason,
        "cause": result.cause,
        "seconds": round(result.seconds, 3),
    }


def _keep(session: Session, samples: Sequence[dict[str, Any]]) -> None:
    """Write down each minute, and count it among those of its hour."""
    new = insert(HealthSample).values(samples)
    # After the clock was put back a minute comes once more: the later test is what is known of it.
    later = {name: new.excluded[name] for name in ("online", "at", "reason", "cause", "seconds")}
    session.execute(new.on_conflict_do_update(index_elements=["keystore_id", "minute"], set_=later))
    hours = insert(HealthHour).values(
        [
            {
                "keystore_id": sample["keystore_id"],
                "hour": sample["at"].replace(minute=0, second=0, microsecond=0),
                "tested": 1,
                "online": int(sample["online"]),
                "slowest_s": sample["seconds"],
                "reason": sample["reason"],
                "cause": sample["cause"],
            }
            for sample in samples
        ]
    )
    added = hours.excluded
    session.execute(
        hours.on_conflict_do_update(
            index_elements=["keystore_id", "hour"],
            set_={
                "tested": HealthHour.tested + added.tested,
                "online": HealthHour.online + added.online,
                "slowest_s": func.greatest(HealthHour.slowest_s, added.slowest_s),
                **{
                    name: case((added.online == 0, added[name]), else_=getattr(HealthHour, name))
                    for name in ("reason", "cause")
                },
            },
        )
    )


@dataclass(frozen=True, slots=True)
class _Monitored:
    """A monitor and its keystore; `counted_at` is when the test was made that the latest minute counts."""

    monitor: HealthMonitor
    keystore: Keystore
    organization: Organization
    counted_at: datetime | None


def _monitored(session: Session, numbers: Sequence[int]) -> dict[int, _Monitored]:
    """Return the monitors of those keystores that are in use: what happens to others is no outage."""
    latest = and_(HealthSample.keystore_id == Keystore.id, HealthSample.minute == KeystoreHealth.minute)
    query = (
        select(HealthMonitor, Keystore, Organization, HealthSample.at)
        .join(Keystore, Keystore.id == HealthMonitor.keystore_id)
        .join(Organization, Organization.active_keystore_id == Keystore.id)
        .join(KeystoreHealth, KeystoreHealth.keystore_id == Keystore.id)
        .outerjoin(HealthSample, latest)
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
        message = messages.connection_failure(owner.name, label, reason, detail, minutes, after.mails)
    else:
        minutes, reason, detail = (before.failing or 0) + 1 - timings.online, "", ""
        message = messages.connection_resumed(owner.name, label, minutes)
    incidents.count_alert(session, keystore.id)
    facts = {"reason": reason or None, "detail": detail or None, "minutes": minutes}
    telling.tell(session, monitor, keystore, owner, event, message, now_utc(), **facts)
    return alert


def _passed(before: datetime | None, now: datetime, length_s: float) -> int:
    """Return 0 for a test that is less than a minute after the last one, a late one, and 1 otherwise."""
    elapsed_s = (now - before).total_seconds() if before else length_s
    return 0 if 0 <= elapsed_s < _ALMOST * length_s else 1


def forget_old(session: Session, now: datetime) -> None:
    """Remove minutes, hours and incidents that nobody asks for any more."""
    session.execute(delete(HealthSample).where(HealthSample.at < now - KEPT))
    session.execute(delete(HealthHour).where(HealthHour.hour < now - HOURS_KEPT))
    incidents.forget_old(session, now)
