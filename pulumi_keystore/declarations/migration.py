"""What a migration can be asked for, and how far it is."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """Whether keys may be enrolled while others move."""

    MAINTENANCE = "maintenance"
    """Keys are read, and none is enrolled, while the migration runs."""
    ONLINE = "online"
    """Keys are enrolled meanwhile, and held only for the last moment."""


class State(StrEnum):
    """Whether a migration is decided, and how."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Phase(StrEnum):
    """What a migration is doing. A migration that is decided has still to clean up before it has ended."""

    PREFLIGHT = "preflight"
    COPY = "copy"
    VERIFY = "verify"
    CLEAN_UP = "clean-up"
    """The source is emptied."""
    ROLL_BACK = "roll-back"
    """The copies are removed from the destination."""
    ENDED = "ended"
