"""Metrics for Prometheus, read from the database when they are asked for: every replica gives the same."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.keystores import verification
from pulumi_keystore.control_plane.keystores.tables import CleanUp, CleanUpState, Side
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.monitoring import views
from pulumi_keystore.control_plane.monitoring.status import NO_REQUEST, Status
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.notifications.tables import Hook, Mail
from pulumi_keystore.control_plane.organizations import ledger
from pulumi_keystore.control_plane.organizations import registry as organizations
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_OF_KEYSTORE: Final = ("organization", "keystore")

METRICS: Final = {
    "keystore_online": ("1 online, 0 offline; no sample while unknown or not checked", _OF_KEYSTORE),
    "keystore_reliability_ratio": ("share of the checked minutes of the last hour that were online", _OF_KEYSTORE),
    "keystore_last_health_check_timestamp_seconds": ("when the latest health check ended", _OF_KEYSTORE),
    "keystore_health_check_duration_seconds": ("duration of the latest health check", _OF_KEYSTORE),
    "keystore_warning": ("1 if it is online with a warning, such as a sealed standby", _OF_KEYSTORE),
    "keystore_certificate_not_after_timestamp_seconds": ("when the client certificate expires", _OF_KEYSTORE),
    "keystore_active": ("1 for the keystore in use", _OF_KEYSTORE),
    "keystore_archive_keys": ("archive keys in escrow", ("organization",)),
    "keystore_archive_keys_missing": ("archive keys that the latest count or audit did not find", ("organization",)),
    "keystore_suspended": (
        "1 if a keystore is newer than the database",
        ("organization",),
    ),
    "keystore_migration_running": ("1 while a migration runs", ("organization",)),
    "keystore_migration_keys": ("keys of the running migration: total, copied and verified", ("organization", "state")),
    "keystore_clean_ups_pending": ("clean-ups still to be done after migrations", ()),
    "keystore_outbox_waiting": ("emails and webhooks not accepted yet", ("kind",)),
    "keystore_outbox_given_up": ("mails or webhook calls that were refused for good, or for five days", ("kind",)),
}
"""Name → what it says, and its labels; all are gauges."""


def exposition(session: Session, plane: ControlPlane, organization: str | None, now: datetime) -> bytes:
    """Return all metrics as Prometheus reads them (text format 0.0.4).

    Args:
        session: A transaction.
        plane: What it is about.
        organization: The one that may be seen, or None for all; what is of the service as a whole is then shown, too.
        now: The moment.

    """
    registry = CollectorRegistry()
    gauges = {name: Gauge(name, text, labels, registry=registry) for name, (text, labels) in METRICS.items()}
    owners = [row for row in organizations.list_all(session) if organization in (None, row.name)]
    for owner in owners:
        _of_organization(session, gauges, owner)
        for keystore in session.scalars(select(Keystore).where(Keystore.organization_id == owner.id)):
            _of_keystore(session, plane, gauges, owner, keystore, now)
    if organization is None:
        pending = select(func.count()).where(CleanUp.state == CleanUpState.PENDING, CleanUp.side != Side.PROOF)
        gauges["keystore_clean_ups_pending"].set(session.scalar(pending) or 0)
        for kind, table in (("mail", Mail), ("webhook", Hook)):
            unsent = select(func.count()).where(table.sent_at.is_(None))
            waiting = session.scalar(unsent.where(table.given_up_at.is_(None))) or 0
            gauges["keystore_outbox_waiting"].labels(kind).set(waiting)
            given_up = session.scalar(unsent.where(table.given_up_at.is_not(None))) or 0
            gauges["keystore_outbox_given_up"].labels(kind).set(given_up)
    return generate_latest(registry)


def _of_organization(session: Session, gauges: dict[str, Gauge], owner: Organization) -> None:
    gauges["keystore_archive_keys"].labels(owner.name).set(ledger.count_keys(session, owner))
    gauges["keystore_suspended"].labels(owner.name).set(owner.suspended is not None)
    looked, counted = verification.latest(session, owner), session.get(KeystoreHealth, owner.active_keystore_id or 0)
    missing = max(looked.missing + looked.damaged if looked else 0, counted.lacking if counted else 0)
    gauges["keystore_archive_keys_missing"].labels(owner.name).set(missing)
    gauges["keystore_migration_running"].labels(owner.name).set(owner.maintenance_by is not None)
    row = session.get(Migration, owner.maintenance_by) if owner.maintenance_by else None
    if row is not None:
        for state, keys in (("total", row.total), ("copied", row.done), ("verified", row.verified)):
            gauges["keystore_migration_keys"].labels(owner.name, state).set(keys)


def _of_keystore(
    session: Session,
    plane: ControlPlane,
    gauges: dict[str, Gauge],
    owner: Organization,
    keystore: Keystore,
    now: datetime,
) -> None:
    def set_to(name: str, value: float | None) -> None:
        if value is not None:
            gauges[name].labels(owner.name, keystore.name).set(value)

    set_to("keystore_active", owner.active_keystore_id == keystore.id)
    ends = keystore.certificate_not_after
    set_to("keystore_certificate_not_after_timestamp_seconds", ends.timestamp() if ends else None)
    row = session.get(KeystoreHealth, keystore.id)
    if row is None or row.tested_at is None:
        return
    shown = views.connection(session, plane, keystore, now)
    known = {Status.ONLINE: 1.0, Status.OFFLINE: 0.0}
    untested = shown.reason == NO_REQUEST
    set_to("keystore_online", None if untested else known.get(shown.status))
    set_to("keystore_warning", shown.warning is not None)
    set_to("keystore_reliability_ratio", views.reliability(session, plane, keystore, now).ratio)
    set_to("keystore_last_health_check_timestamp_seconds", row.tested_at.timestamp())
    set_to("keystore_health_check_duration_seconds", row.seconds)
