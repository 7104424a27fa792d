"""What is told to people; the texts live with what they are about (contract: Alerts)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """A subject and a body; `kind` tells the messages about one event apart."""

    kind: str
    subject: str
    body: str
