"""Notices before a certificate expires: the one we log in with, and the one the server shows (contract: Alerts)."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cryptography.x509 import load_pem_x509_certificate
from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.keystores import telling
from pulumi_keystore.control_plane.keystores.tables import HealthMonitor
from pulumi_keystore.control_plane.monitoring import messages
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime import background
from pulumi_keystore.declarations.expiry import WARN_BEFORE_EXPIRY
from pulumi_keystore.vault.requests import Validity

DAYS: Final = (WARN_BEFORE_EXPIRY.days, 14, 7, 1)
"""How many days before the end somebody is told."""
SHARE: Final = 4
"""A server's certificate that lives shorter than so many times a notice's days is renewed later than that by design."""


class Whose(StrEnum):
    """Whose certificate it is."""

    CLIENT = "client"
    SERVER = "server"


_SHARES: Final = {Whose.CLIENT: 2, Whose.SERVER: SHARE}
"""A client certificate is renewed by people more often, and 90 days are usual."""


def notice_due(whose: Whose, validity: Validity, now: datetime) -> int | None:
    """Return which notice is due, by its number of days; None before the first one, and when it is too late.

    Of a certificate that is made for 24 hours nobody wants to hear each day.
    """
    left, life = validity.not_after - now, validity.not_after - validity.not_before
    if left <= timedelta(0):
        return None
    lives = life / _SHARES[whose]
    days = [number for number in DAYS if left <= timedelta(days=number) <= lives]
    return min(days, default=None)


def tell(session: Session, now: datetime) -> None:
    """Leave the notices that are due about keystores in use, each once."""
    soon = now + timedelta(days=max(DAYS))
    watched = (
        select(HealthMonitor, Keystore, Organization, KeystoreHealth)
        .join(Keystore, Keystore.id == HealthMonitor.keystore_id)
        .join(Organization, Organization.active_keystore_id == Keystore.id)
        .outerjoin(KeystoreHealth, KeystoreHealth.keystore_id == Keystore.id)
        .order_by(Keystore.id)
    )
    ours, theirs = Keystore.certificate_not_after, KeystoreHealth.server_not_after
    for whose, end in ((Whose.CLIENT, ours), (Whose.SERVER, theirs)):
        for monitor, keystore, owner, health in session.execute(watched.where(end.between(now, soon))):
            # Whatever is wrong with one of them, the others' notices are left.
            with background.isolated("notice", keystore=keystore.id):
                validity = _ours(keystore) if whose is Whose.CLIENT else _theirs(health)
                _tell(session, now, whose, validity, monitor, keystore, owner)


def _ours(keystore: Keystore) -> Validity:
    """Return the validity of the certificate that we log in with."""
    assert keystore.certificate_pem is not None  # noqa: S101 - it expires
    assert keystore.certificate_not_after is not None  # noqa: S101
    begin = load_pem_x509_certificate(keystore.certificate_pem.encode()).not_valid_before_utc
    return Validity(begin, keystore.certificate_not_after)


def _theirs(health: KeystoreHealth) -> Validity:
    """Return the validity of the certificate that the server shows."""
    assert health.server_not_before is not None  # noqa: S101 - both were seen
    assert health.server_not_after is not None  # noqa: S101
    return Validity(health.server_not_before, health.server_not_after)


def _tell(
    session: Session,
    now: datetime,
    whose: Whose,
    validity: Validity,
    monitor: HealthMonitor,
    keystore: Keystore,
    owner: Organization,
) -> None:
    days, end = notice_due(whose, validity, now), validity.not_after
    if days is None:
        return
    event = f"expiry-{keystore.id}-{whose}-{end:%Y%m%d%H%M%S}-{days}"
    label = f"{keystore.name} ({keystore.address})"
    message = messages.certificate_expires(owner.name, label, end, now, ours=whose is Whose.CLIENT)
    facts = {"certificate": whose, "not_after": end.isoformat()}
    telling.tell(session, monitor, keystore, owner, event, message, now, **facts)
