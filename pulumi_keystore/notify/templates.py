"""The texts of the mails (contract: Alerts)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Letter:
    """A subject and a body; `kind` tells the letters about one event apart."""

    kind: str
    subject: str
    body: str


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
