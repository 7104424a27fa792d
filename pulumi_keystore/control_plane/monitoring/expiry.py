"""Notices before a certificate expires: the one we log in with, and the one the server shows (contract: Alerts)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography.x509 import load_pem_x509_certificate
from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.monitoring import messages
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.notifications import mail, webhooks
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.vault.requests import Validity

DAYS: Final = (30, 14, 7, 1)
"""How many days before the end somebody is told."""
SHARE: Final = 4
"""A certificate that lives shorter than so many times a notice's days is renewed later than that by design."""


class Whose(StrEnum):
    """Whose certificate it is."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class _Ending:
    whose: Whose
    validity: Validity
    monitor: HealthMonitor
    keystore: Keystore
    organization: Organization


def notice_due(validity: Validity, now: datetime) -> int | None:
    """Return which notice is due, by its number of days; None before the first one, and when it is too late.

    Of a certificate that is made for 24 hours nobody wants to hear each day.
    """
    left, life = validity.not_after - now, validity.not_after - validity.not_before
    if left <= timedelta(0):
        return None
    days = [number for number in DAYS if left <= timedelta(days=number) and SHARE * timedelta(days=number) <= life]
    return min(days, default=None)


def tell(session: Session, now: datetime) -> int:
    """Leave the notices that are due about keystores in use, each once; return how many certificates they are about."""
    told = 0
    for ending in _endings(session, now):
        days = notice_due(ending.validity, now)
        if days is None:
            continue
        told += 1
        keystore, owner, end = ending.keystore, ending.organization, ending.validity.not_after
        event = f"expiry-{keystore.id}-{ending.whose}-{end:%Y%m%d%H%M%S}-{days}"
        label = f"{keystore.name} ({keystore.address})"
        message = messages.certificate_expires(owner.name, label, end, now, ours=ending.whose is Whose.CLIENT)
        mail.put_to_each(session, event, ending.monitor.recipients, message)
        if ending.monitor.webhook_sealed:
            body = {
                "event": f"keystore.{message.kind}",
                "organization": owner.name,
                "keystore": keystore.name,
                "address": keystore.address,
                "certificate": ending.whose,
                "not_after": end.isoformat(),
                "at": now.isoformat(),
            }
            webhooks.put(session, event, ending.monitor.webhook_sealed, str(keystore.id), body)
    return told


def _endings(session: Session, now: datetime) -> Iterator[_Ending]:
    """Return the certificates that expire within the time of the first notice, of keystores that are in use."""
    soon = now + timedelta(days=max(DAYS))
    watched = (
        select(HealthMonitor, Keystore, Organization)
        .join(Keystore, Keystore.id == HealthMonitor.keystore_id)
        .join(Organization, Organization.active_keystore_id == Keystore.id)
        .order_by(Keystore.id)
    )
    for monitor, keystore, owner in session.execute(watched.where(Keystore.certificate_not_after.between(now, soon))):
        if keystore.certificate_pem and keystore.certificate_not_after:
            begin = load_pem_x509_certificate(keystore.certificate_pem.encode()).not_valid_before_utc
            yield _Ending(Whose.CLIENT, Validity(begin, keystore.certificate_not_after), monitor, keystore, owner)
    shown = watched.join(KeystoreHealth, KeystoreHealth.keystore_id == Keystore.id).add_columns(KeystoreHealth)
    for monitor, keystore, owner, health in session.execute(
        shown.where(KeystoreHealth.server_not_after.between(now, soon))
    ):
        if health.server_not_before and health.server_not_after:
            validity = Validity(health.server_not_before, health.server_not_after)
            yield _Ending(Whose.SERVER, validity, monitor, keystore, owner)
