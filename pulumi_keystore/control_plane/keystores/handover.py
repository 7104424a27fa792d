"""Whoever is told of the outages of a keystore is told of those of the keystore that follows it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.notifications import webhooks
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind


def would_carry_alerts(session: Session, source: Keystore, kind: str, destination: Keystore | None) -> bool:
    """Tell whether the alerts of a keystore would be those of another one; None stands for one not registered yet."""
    lacks = destination is None or session.get(HealthMonitor, destination.id) is None
    return lacks and kind == Kind.SELF_ADMINISTERED and session.get(HealthMonitor, source.id) is not None


def carry_alerts(session: Session, plane: ControlPlane, source: Keystore, destination: Keystore) -> str | None:
    """Have the same people told as of the source, unless the destination has a monitor of its own; return whom."""
    before = session.get(HealthMonitor, source.id)
    if before is None or not would_carry_alerts(session, source, destination.kind, destination):
        return None
    monitor = HealthMonitor(
        keystore_id=destination.id,
        recipients=before.recipients,
        offline_minutes=before.offline_minutes,
        repeat_hours=before.repeat_hours,
        online_minutes=before.online_minutes,
        created_at=now_utc(),
    )
    if before.webhook_sealed is not None:
        # It is sealed for the row that it is in.
        url = plane.master_key.open(webhooks.PURPOSE, str(source.id), before.webhook_sealed)
        monitor.webhook_sealed = plane.master_key.seal(webhooks.PURPOSE, str(destination.id), url)
        monitor.webhook_host, monitor.webhook_format = before.webhook_host, before.webhook_format
    session.add(monitor)
    destination.alerts = source.alerts
    hook = [f"webhook at {monitor.webhook_host}"] if monitor.webhook_host else []
    return ", ".join([*monitor.recipients, *hook]) or "no mail"
