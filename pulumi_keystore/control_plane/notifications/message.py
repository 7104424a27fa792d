"""The texts of the mails (contract: Alerts)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Letter:
    """A subject and a body; `kind` tells the letters about one event apart."""

    kind: str
    subject: str
    body: str


def connection_failure(organization: str, keystore: str, reason: str, detail: str, minutes: int, number: int) -> Letter:
    """Return the mail about a keystore that is offline; `number` counts those about one incident."""
    again = f"\nThis is reminder {number - 1}; it is repeated for as long as this lasts.\n" if number > 1 else ""
    return Letter(
        "offline",
        "Error: Keystore connection failure",
        f"The cloud can no longer communicate with your keystore for backup archives.\n\n"
        f"Organization: {organization}\nKeystore: {keystore}\nOffline for: {_span(minutes)}\nReason: {reason}\n"
        f"Detail: {detail}\n{again}\n"
        "Backup from devices goes on. Until the keystore is back, users cannot be created, change their passwords or "
        "sign in for the first time, and files cannot be restored by the console.\n",
    )


def connection_resumed(organization: str, keystore: str, minutes: int) -> Letter:
    """Return the mail about a keystore that is online again."""
    return Letter(
        "online",
        "Success: Keystore connection resumed",
        f"The cloud is now communicating with your keystore for backup archives.\n\n"
        f"Organization: {organization}\nKeystore: {keystore}\nThe incident lasted: {_span(minutes)}\n",
    )


def _span(minutes: int) -> str:
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    parts = [(days, "day"), (hours, "hour"), (minutes, "minute")]
    told = [f"{number} {name}{'' if number == 1 else 's'}" for number, name in parts if number]
    return " ".join(told) or "less than a minute"


def migration_starts(organization: str, source: str, destination: str, keys: int) -> Letter:
    """Return the mail at the start of a migration."""
    return Letter(
        "started",
        "Keystore Migration Starts",
        f"Your archive encryption keys are now migrating from one keystore to another.\n\n"
        f"Organization: {organization}\nFrom: {source}\nTo: {destination}\nArchive keys: {keys:,}\n\n"
        "Until it ends, users cannot be created or change their passwords. Backup and restore go on.\n",
    )


def migration_succeeds(organization: str, destination: str, keys: int) -> Letter:
    """Return the mail after a migration has moved every key."""
    return Letter(
        "succeeded",
        "Keystore Migration Succeeds",
        f"Your archive encryption keys now reside at their new location.\n\n"
        f"Organization: {organization}\nKeystore: {destination}\nArchive keys: {keys:,}, each read back and equal.\n",
    )


def migration_failed(organization: str, source: str, ending: str, detail: str) -> Letter:
    """Return the mail after a migration that did not happen."""
    return Letter(
        "failed",
        "Error! Keystore Migration Failed",
        f"Keystore migration failed.\n\n"
        f"Organization: {organization}\n{ending}\nReason: {detail}\n\n"
        f"All archive keys are where they were, and in use: {source}\nThe migration can be started again.\n",
    )


def recovery_needed(organization: str, reason: str) -> Letter:
    """Return the mail about an organization that is suspended."""
    return Letter(
        "suspended",
        "Error: Keystore recovery needed",
        f"The control plane has stopped changing anything about your archive encryption keys.\n\n"
        f"Organization: {organization}\nReason: {reason}\n\n"
        "No key has been deleted because of it. Keys can be read; none is enrolled, moved or deleted until an "
        f"administrator runs `keystore recover {organization}`.\n",
    )


def keys_missing(organization: str, keystore: str, lacking: int, keys: int) -> Letter:
    """Return the mail about archive keys that are in escrow and not in the keystore."""
    return Letter(
        "missing",
        "Error: Archive keys are missing",
        f"Your keystore does not hold every archive encryption key that was put into it.\n\n"
        f"Organization: {organization}\nKeystore: {keystore}\nMissing: {lacking:,} of {keys:,}\n\n"
        f"`keystore verify {organization}` names the users. Restore the keystore from a newer snapshot, or let their "
        "devices enrol the same keys again.\n",
    )
