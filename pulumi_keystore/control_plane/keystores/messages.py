"""The mail about an organization that is suspended (contract: Alerts)."""

from __future__ import annotations

from pulumi_keystore.control_plane.notifications.message import Message


def recovery_needed(organization: str, reason: str) -> Message:
    """Return the mail about an organization that is suspended."""
    return Message(
        "suspended",
        "Error: Keystore recovery needed",
        f"The control plane has stopped changing anything about your archive encryption keys.\n\n"
        f"Organization: {organization}\nReason: {reason}\n\n"
        "No key has been deleted because of it. Keys can be read; none is enrolled, moved or deleted until an "
        f"administrator runs `keystore recover {organization}`.\n",
    )
