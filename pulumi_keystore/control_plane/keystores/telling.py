"""Telling those whom the monitors of keystores name: a mail for each recipient, and a call of each webhook."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.notifications import mail, webhooks
from pulumi_keystore.control_plane.notifications.message import Message
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization


def tell(
    session: Session,
    monitor: HealthMonitor,
    keystore: Keystore,
    owner: Organization,
    event: str,
    message: Message,
    at: datetime,
    **facts: object,
) -> None:
    """Leave a message for everybody a monitor names: a mail for each recipient, and a call of the webhook.

    Args:
        session: The transaction of what it is about.
        monitor: Who is told.
        keystore: What it is about.
        owner: Whose that is.
        event: Names what has happened: the same is left only once.
        message: What mails say; its kind is that of the call's event, too.
        at: When it happened.
        facts: What the call says beside that.

    """
    mail.put_to_each(session, owner.id, event, monitor.recipients, message)
    _call(session, monitor, keystore, owner, event, message, at, **facts)


def tell_all(session: Session, owner: Organization, event: str, message: Message) -> None:
    """Leave a message for everybody whom any monitor of an organization names, once for each."""
    query = select(HealthMonitor, Keystore).join(Keystore, Keystore.id == HealthMonitor.keystore_id)
    named = session.execute(query.where(Keystore.organization_id == owner.id).order_by(Keystore.id)).all()
    recipients = sorted({recipient for monitor, _ in named for recipient in monitor.recipients})
    mail.put_to_each(session, owner.id, event, recipients, message)
    for monitor, keystore in named:
        _call(session, monitor, keystore, owner, f"{event}.{keystore.id}", message, now_utc())


def _call(
    session: Session,
    monitor: HealthMonitor,
    keystore: Keystore,
    owner: Organization,
    event: str,
    message: Message,
    at: datetime,
    **facts: object,
) -> None:
    if monitor.webhook_sealed:
        body = {
            "event": f"keystore.{message.kind}",
            "organization": owner.name,
            "keystore": keystore.name,
            "address": keystore.address,
            "summary": message.subject,
            **facts,
            "at": at.isoformat(),
        }
        call = webhooks.Call(monitor.webhook_sealed, str(keystore.id), monitor.webhook_format)
        webhooks.put(session, f"{event}.{message.kind}", call, body)
