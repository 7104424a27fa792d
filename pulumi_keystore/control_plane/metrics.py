"""Metrics for Prometheus, read from the database when they are asked for: every replica gives the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane import overview
from pulumi_keystore.control_plane.keystores.tables import CleanUp, CleanUpState, Side, Verification
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.monitoring import views
from pulumi_keystore.control_plane.monitoring.status import NO_REQUEST, Status
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.notifications.tables import Hook, Mail
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, Organization
from pulumi_keystore.control_plane.runtime import background
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import one_of
from pulumi_keystore.declarations.migration import State

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_OF_KEYSTORE: Final = ("organization", "keystore")

METRICS: Final = {
    "keystore_organizations": ("organizations", ()),
    "keystore_organizations_with_problem": ("organizations with this problem", ("problem",)),
    "keystore_migrations_running": ("migrations that run", ()),
    "keystore_online": ("1 online, 0 offline; no sample while unknown or not checked", _OF_KEYSTORE),
    "keystore_reliability_ratio": ("share of the checked minutes of the last hour that were online", _OF_KEYSTORE),
    "keystore_last_health_check_timestamp_seconds": ("when the latest health check ended", _OF_KEYSTORE),
    "keystore_health_check_duration_seconds": ("duration of the latest health check", _OF_KEYSTORE),
    "keystore_warning": ("1 if it is online with a warning, such as a sealed standby", _OF_KEYSTORE),
    "keystore_certificate_not_after_timestamp_seconds": ("when the client certificate expires", _OF_KEYSTORE),
    "keystore_server_certificate_not_after_timestamp_seconds": (
        "when the certificate expires that the keystore's server shows",
        _OF_KEYSTORE,
    ),
    "keystore_active": ("1 for the active keystore", _OF_KEYSTORE),
    "keystore_archive_keys": ("archive keys in escrow", ("organization",)),
    "keystore_archive_keys_missing": ("archive keys that the latest count or audit did not find", ("organization",)),
    "keystore_suspended": (
        "1 if a keystore is newer than the database",
        ("organization",),
    ),
    "keystore_migration_running": ("1 while a migration runs", ("organization",)),
    "keystore_migration_keys": ("keys of the running migration: total, copied and verified", ("organization", "state")),
    "keystore_clean_ups_pending": ("clean-ups still to be done after migrations", ()),
    "keystore_background_work_timestamp_seconds": (
        "time the job last completed; it is repeated every few seconds or minutes",
        ("work",),
    ),
    "keystore_outbox_waiting": ("emails and webhooks not accepted yet", ("kind",)),
    "keystore_outbox_given_up": ("emails or webhooks refused for good, or for five days", ("kind",)),
}
"""Name → what it says, and its labels; all are gauges."""


def exposition(
    session: Session, plane: ControlPlane, organization: str | None, now: datetime, *, each: bool = False
) -> bytes:
    """Return all metrics as Prometheus reads them (text format 0.0.4).

    Args:
        session: A transaction.
        plane: What it is about.
        organization: The one whose metrics alone are wanted, or None for those of the service as a whole.
        now: The moment.
        each: Whether those of each organization are wanted, too; of 100,000 that is a text of 100 MB.

    """
    registry = CollectorRegistry()
    gauges = {name: Gauge(name, text, labels, registry=registry) for name, (text, labels) in METRICS.items()}
    if organization is not None or each:
        found = select(Organization).order_by(Organization.name)
        mine = found if organization is None else found.where(Organization.name == organization)
        owners = session.scalars(mine).all()
        numbers = [owner.id for owner in owners]
        _of_organizations(session, gauges, owners)
        theirs = session.scalars(select(Keystore).where(one_of(Keystore.organization_id, numbers))).all()
        _of_keystores(session, plane, gauges, {owner.id: owner for owner in owners}, theirs, now)
    if organization is None:
        gauges["keystore_organizations"].set(session.scalar(select(func.count(Organization.id))) or 0)
        for problem, count in overview.count_problems(session, plane, now).items():
            gauges["keystore_organizations_with_problem"].labels(problem).set(count)
        running = select(func.count()).where(Migration.state == State.RUNNING)
        gauges["keystore_migrations_running"].set(session.scalar(running) or 0)
        pending = select(func.count()).where(CleanUp.state == CleanUpState.PENDING, CleanUp.side != Side.PROOF)
        gauges["keystore_clean_ups_pending"].set(session.scalar(pending) or 0)
        for work, at in background.turns.items():
            gauges["keystore_background_work_timestamp_seconds"].labels(work).set(at)
        for kind, table in (("mail", Mail), ("webhook", Hook)):
            unsent = select(func.count()).where(table.sent_at.is_(None))
            waiting = session.scalar(unsent.where(table.given_up_at.is_(None))) or 0
            gauges["keystore_outbox_waiting"].labels(kind).set(waiting)
            given_up = session.scalar(unsent.where(table.given_up_at.is_not(None))) or 0
            gauges["keystore_outbox_given_up"].labels(kind).set(given_up)
    return generate_latest(registry)


def _of_organizations(session: Session, gauges: dict[str, Gauge], owners: Sequence[Organization]) -> None:
    """Set what is of organizations; each question to the database is asked once for all of them."""
    numbers, active = [owner.id for owner in owners], [owner.active_keystore_id or 0 for owner in owners]
    entries = select(ArchiveKeyEntry.organization_id, func.count()).group_by(ArchiveKeyEntry.organization_id)
    counted = entries.where(one_of(ArchiveKeyEntry.organization_id, numbers))
    wrong = select(Verification.organization_id, Verification.missing + Verification.damaged)
    looked = wrong.where(one_of(Verification.organization_id, numbers))
    few = select(KeystoreHealth.keystore_id, KeystoreHealth.lacking).where(KeystoreHealth.lacking > 0)
    lacking = few.where(one_of(KeystoreHealth.keystore_id, active))
    keys, audited, tested = (dict(session.execute(query).all()) for query in (counted, looked, lacking))
    running = [owner.maintenance_by for owner in owners if owner.maintenance_by]
    migrations = {row.id: row for row in session.scalars(select(Migration).where(Migration.id.in_(running)))}
    for owner in owners:
        gauges["keystore_archive_keys"].labels(owner.name).set(keys.get(owner.id, 0))
        gauges["keystore_suspended"].labels(owner.name).set(owner.suspended is not None)
        missing = max(audited.get(owner.id, 0), tested.get(owner.active_keystore_id or 0, 0))
        gauges["keystore_archive_keys_missing"].labels(owner.name).set(missing)
        gauges["keystore_migration_running"].labels(owner.name).set(owner.maintenance_by is not None)
        row = migrations.get(owner.maintenance_by or "")
        if row is not None:
            for state, number in (("total", row.total), ("copied", row.done), ("verified", row.verified)):
                gauges["keystore_migration_keys"].labels(owner.name, state).set(number)


def _of_keystores(
    session: Session,
    plane: ControlPlane,
    gauges: dict[str, Gauge],
    owners: Mapping[int, Organization],
    rows: Sequence[Keystore],
    now: datetime,
) -> None:
    """Set what is of keystores, those that are tested and the others."""
    numbers = [row.id for row in rows]
    mine = one_of(KeystoreHealth.keystore_id, numbers)
    tested = select(KeystoreHealth).where(KeystoreHealth.tested_at.is_not(None), mine)
    health = {row.keystore_id: row for row in session.scalars(tested)}
    shown = views.connections(session, plane, [row for row in rows if row.id in health], now)
    ratios = views.ratios(session, plane, numbers, now)
    for keystore in rows:
        owner = owners.get(keystore.organization_id)
        if owner is None:
            continue  # of an organization that was made a moment ago
        labels = (owner.name, keystore.name)

        def set_to(name: str, value: float | None, labels: tuple[str, str] = labels) -> None:
            if value is not None:
                gauges[name].labels(*labels).set(value)

        set_to("keystore_active", owner.active_keystore_id == keystore.id)
        ends = keystore.certificate_not_after
        set_to("keystore_certificate_not_after_timestamp_seconds", ends.timestamp() if ends else None)
        row = health.get(keystore.id)
        if row is None or row.tested_at is None:
            continue
        connection = shown[keystore.id]
        known = {Status.ONLINE: 1.0, Status.OFFLINE: 0.0}
        set_to("keystore_online", None if connection.reason == NO_REQUEST else known.get(connection.status))
        shown_until = row.server_not_after
        name = "keystore_server_certificate_not_after_timestamp_seconds"
        set_to(name, shown_until.timestamp() if shown_until else None)
        set_to("keystore_warning", connection.warning is not None)
        set_to("keystore_reliability_ratio", ratios.get(keystore.id))
        set_to("keystore_last_health_check_timestamp_seconds", row.tested_at.timestamp())
        set_to("keystore_health_check_duration_seconds", row.seconds)
