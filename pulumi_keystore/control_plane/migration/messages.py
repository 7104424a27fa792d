"""The mails about a migration (contract: Alerts)."""

from __future__ import annotations

from pulumi_keystore.control_plane.notifications.message import Message


def migration_starts(organization: str, source: str, destination: str, keys: int, *, online: bool) -> Message:
    """Return the mail at the start of a migration; while an `online` one runs, users can be created."""
    meanwhile = (
        "Users can still be created, with a short delay at the end."
        if online
        else "Until it ends, users cannot be created or change their passwords."
    )
    return Message(
        "started",
        "Keystore Migration Starts",
        f"Your archive encryption keys are now migrating from one keystore to another.\n\n"
        f"Organization: {organization}\nFrom: {source}\nTo: {destination}\nArchive keys: {keys:,}\n\n"
        f"{meanwhile} Backup and restore go on.\n",
    )


def migration_succeeds(organization: str, destination: str, keys: int) -> Message:
    """Return the mail after a migration has moved every key."""
    return Message(
        "succeeded",
        "Keystore Migration Succeeds",
        f"Your archive encryption keys now reside at their new location.\n\n"
        f"Organization: {organization}\nKeystore: {destination}\nArchive keys: {keys:,}, each read back and equal.\n",
    )


def migration_failed(organization: str, source: str, ending: str, detail: str) -> Message:
    """Return the mail after a migration that did not happen."""
    return Message(
        "failed",
        "Error! Keystore Migration Failed",
        f"Keystore migration failed.\n\n"
        f"Organization: {organization}\n{ending}\nReason: {detail}\n\n"
        f"All archive keys are where they were, and in use: {source}\nThe migration can be started again.\n",
    )


def migration_canceled(organization: str, source: str, by: str) -> Message:
    """Return the mail after a migration that somebody has canceled."""
    return Message(
        "failed",
        "Error! Keystore Migration Failed",
        f"Keystore migration was canceled by {by}.\n\n"
        f"Organization: {organization}\n\n"
        f"All archive keys are where they were, and in use: {source}\nThe migration can be started again.\n",
    )
