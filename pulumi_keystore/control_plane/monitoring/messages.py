"""The mails about a keystore's health (contract: Alerts)."""

from __future__ import annotations

from datetime import datetime

from pulumi_keystore.control_plane.notifications.message import Message
from pulumi_keystore.counting import count


def connection_failure(
    organization: str, keystore: str, reason: str, detail: str, minutes: int, number: int
) -> Message:
    """Return the mail about a keystore that is offline; `number` counts those about one incident."""
    again = f"\nThis is reminder {number - 1}; it is repeated for as long as this lasts.\n" if number > 1 else ""
    return Message(
        "offline",
        "Error: Keystore connection failure",
        f"The cloud can no longer communicate with your keystore for backup archives.\n\n"
        f"Organization: {organization}\nKeystore: {keystore}\nOffline for: {_span(minutes)}\nReason: {reason}\n"
        f"Detail: {detail}\n{again}\n"
        "Backup from devices goes on. Until the keystore is back, users cannot be created, change their passwords or "
        "sign in for the first time, and files cannot be restored by the console.\n",
    )


def connection_resumed(organization: str, keystore: str, minutes: int) -> Message:
    """Return the mail about a keystore that is online again."""
    return Message(
        "online",
        "Success: Keystore connection resumed",
        f"The cloud is now communicating with your keystore for backup archives.\n\n"
        f"Organization: {organization}\nKeystore: {keystore}\nThe incident lasted: {_span(minutes)}\n",
    )


def test(organization: str, keystore: str, actor: str) -> Message:
    """Return the mail that shows whether alerts about a keystore arrive."""
    return Message(
        "test",
        "Test: Keystore alerts",
        f"{actor} has tested the alerts about your keystore for backup archives. Nothing is wrong with it.\n\n"
        f"Organization: {organization}\nKeystore: {keystore}\n",
    )


def _span(minutes: int) -> str:
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute")]
    told = [count(number, name) for number, name in parts if number]
    return " ".join(told) or "less than a minute"


def keys_missing(organization: str, keystore: str, lacking: int, keys: int) -> Message:
    """Return the mail about archive keys that are in escrow and not in the keystore."""
    return Message(
        "missing",
        "Error: Archive keys are missing",
        f"Your keystore does not hold every archive encryption key that was put into it.\n\n"
        f"Organization: {organization}\nKeystore: {keystore}\nMissing: {lacking:,} of {keys:,}\n\n"
        f"`keystore verify {organization}` names the users. Restore the keystore from a newer snapshot, or let their "
        "devices enrol the same keys again.\n",
    )


def certificate_expires(organization: str, keystore: str, end: datetime, now: datetime, *, ours: bool) -> Message:
    """Return the mail about a certificate that expires soon: the one we log in with, or the one the server shows."""
    days = (end - now).days
    left = f"in {count(days, 'day')}" if days else "in less than a day"
    which, what_to_do = (
        (
            "client certificate that the cloud logs in with",
            "Issue a new client certificate, and edit the keystore: the new one is proved before it is used.",
        )
        if ours
        else (
            "TLS certificate of your keystore's server",
            "Renew the server's certificate, and have its listener reload it (SIGHUP).",
        )
    )
    return Message(
        "certificate",
        f"Warning: Keystore certificate expires {left}",
        f"The {which} expires soon.\n\n"
        f"Organization: {organization}\nKeystore: {keystore}\nExpires: {end:%Y-%m-%d %H:%M} UTC, {left}\n\n"
        f"{what_to_do}\n\n"
        "When it has expired, the keystore is offline: users cannot be created, change their passwords or sign in for "
        "the first time, and files cannot be restored by the console.\n",
    )
