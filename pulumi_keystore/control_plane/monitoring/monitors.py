"""Health monitors: who is told when a keystore is offline (contract: Alerts)."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from pulumi_keystore.answers import MonitorAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.notifications import webhooks
from pulumi_keystore.control_plane.organizations import history, keystores, maintenance, ownership, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.monitor import (
    INPUTS,
    OFFLINE_MINUTES,
    ONLINE_MINUTES,
    REPEAT_HOURS,
    WebhookFormat,
    alerting_problems,
    check_webhook,
)
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Alerting:
    """Who is told, and when.

    Attributes:
        recipients: E-mail addresses of the administrators.
        webhook: https://HOST/PATH that is called, too.
        webhook_format: What it is called with.
        offline_minutes: After how many minutes offline they are told.
        repeat_hours: After how many hours they are told again, for as long as it lasts.
        online_minutes: After how many minutes online again they are told.

    """

    recipients: tuple[str, ...] = ()
    webhook: str | None = field(default=None, repr=False)
    webhook_format: str = WebhookFormat.JSON
    offline_minutes: int = OFFLINE_MINUTES
    repeat_hours: int = REPEAT_HOURS
    online_minutes: int = ONLINE_MINUTES

    def check(self) -> None:
        """Apply every rule.

        Raises:
            RuleViolation: KS033, KS039, KS040, KS041, KS046.

        """
        for violation in alerting_problems({name: getattr(self, name) for name in INPUTS}):
            raise violation


def put(
    plane: ControlPlane,
    actor: str,
    organization: str,
    keystore: str,
    wanted: Alerting,
    *,
    adopt: bool = True,
    mark: str | None = None,
) -> MonitorAnswer:
    """Have a keystore monitored, or change who is told. Safe to repeat; an open incident goes on.

    Raises:
        RuleViolation: A property breaks a rule.
        Conflict: The keystore is not a self-administered one; or its monitor is another Pulumi resource's and says
            something else, and `adopt` is not set.

    """
    wanted.check()
    with plane.transaction() as session:
        owner = registry.find(session, organization, lock=True)
        maintenance.require_cloud(owner)
        row = keystores.find(session, owner, keystore)
        if row.kind != Kind.SELF_ADMINISTERED:
            raise Conflict(
                f"keystore: {keystore!r} is a {row.kind} keystore, and only self-administered ones are monitored",
                hint="the provider watches its own keystores",
                prop="keystore",
            )
        monitor = find(session, row)
        before = alerting(plane, monitor) if monitor else None
        if monitor is not None and ownership.is_anothers(monitor, mark) and before != wanted and not adopt:
            raise Conflict(
                f"the monitor of {keystore!r} is managed by another Pulumi resource, and says something else",
                hint="set adopt=True to take it over and change it to what is declared",
            )
        if monitor is None:
            monitor = HealthMonitor(keystore_id=row.id, created_at=now_utc())
            session.add(monitor)
        monitor.recipients = list(wanted.recipients)
        monitor.offline_minutes, monitor.repeat_hours = wanted.offline_minutes, wanted.repeat_hours
        monitor.online_minutes = wanted.online_minutes
        monitor.webhook_format = WebhookFormat(wanted.webhook_format)
        if wanted.webhook is None:
            monitor.webhook_sealed = monitor.webhook_host = None
        else:
            monitor.webhook_host = check_webhook(wanted.webhook).host
            if before is None or before.webhook != wanted.webhook:
                monitor.webhook_sealed = plane.master_key.seal(webhooks.PURPOSE, str(row.id), wanted.webhook.encode())
        row.alerts = bool(wanted.recipients or wanted.webhook)
        if before != wanted:
            monitor.rehearsal = None  # it was another one
            recipients = ", ".join(wanted.recipients) or "no mail"
            hook = f", webhook at {monitor.webhook_host}" if monitor.webhook_host else ""
            history.append(session, owner.id, actor, "Health monitor set", f"{keystore}: {recipients}{hook}")
        what = f"the monitor of {keystore!r}"
        warnings = ownership.take_over(
            session, actor, owner.id, monitor, mark, what=what, action="Health monitor taken over"
        )
        session.flush()
        return {**describe(plane, owner, row, monitor), "warnings": warnings}


def get(plane: ControlPlane, session: Session, owner: Organization, keystore: str) -> MonitorAnswer:
    """Return the monitor of a keystore.

    Raises:
        NotFound: It has none.

    """
    row = keystores.find(session, owner, keystore)
    return describe(plane, owner, row, require(session, row))


def find(session: Session, keystore: Keystore) -> HealthMonitor | None:
    """Return the monitor of a keystore, if it has one."""
    return session.get(HealthMonitor, keystore.id)


def require(session: Session, keystore: Keystore) -> HealthMonitor:
    """Return the monitor of a keystore.

    Raises:
        NotFound: It has none.

    """
    monitor = find(session, keystore)
    if monitor is None:
        raise NotFound(
            f"the keystore {keystore.name!r} has no monitor",
            hint="declare a HealthMonitor, or run `keystore monitor set`",
        )
    return monitor


def remove(plane: ControlPlane, actor: str, organization: str, keystore: str, mark: str | None = None) -> None:
    """Remove the monitor; health checks continue.

    Raises:
        NotFound: It has no monitor.
        ManagedElsewhere: A Pulumi resource asks that does not manage it any more.

    """
    with plane.transaction() as session:
        owner = registry.find(session, organization, lock=True)
        row = keystores.find(session, owner, keystore)
        monitor = require(session, row)
        ownership.require_owned(monitor, mark, f"the monitor of {keystore!r}")
        session.delete(monitor)
        row.alerts = False
        history.append(session, owner.id, actor, "Health monitor removed", keystore)


def describe(plane: ControlPlane, owner: Organization, keystore: Keystore, monitor: HealthMonitor) -> MonitorAnswer:
    """Return what may be shown of a monitor; of its webhook that is the host, and a keyed digest."""
    url = alerting(plane, monitor).webhook
    digest = plane.master_key.fingerprint(owner.name, webhooks.PURPOSE, url.encode()).hex() if url else None
    return {
        "organization": owner.name,
        "keystore": keystore.name,
        "recipients": monitor.recipients,
        "webhook_host": monitor.webhook_host,
        "webhook_format": str(monitor.webhook_format) if monitor.webhook_host else None,
        "webhook_fingerprint": digest,
        "offline_minutes": monitor.offline_minutes,
        "repeat_hours": monitor.repeat_hours,
        "online_minutes": monitor.online_minutes,
    }


def alerting(plane: ControlPlane, monitor: HealthMonitor) -> Alerting:
    """Return what a monitor was set to."""
    sealed = monitor.webhook_sealed
    return Alerting(
        tuple(monitor.recipients),
        plane.master_key.open(webhooks.PURPOSE, str(monitor.keystore_id), sealed).decode() if sealed else None,
        monitor.webhook_format,
        monitor.offline_minutes,
        monitor.repeat_hours,
        monitor.online_minutes,
    )
