"""What a migration can be asked for, and how far it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from pulumi_keystore import rules
from pulumi_keystore.declarations.judging import Judgement
from pulumi_keystore.declarations.names import notified
from pulumi_keystore.errors import RuleViolation


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


def has_ended(state: str, phase: str) -> bool:
    """Tell whether nothing of a migration is left to do: it is decided, and what it had to clean up is away."""
    return state != State.RUNNING and phase == Phase.ENDED


def check_mode(mode: str) -> Mode:
    """Return how a migration treats enrolments, or raise `RuleViolation` (KS038)."""
    try:
        return Mode(mode)
    except ValueError:
        raise rules.MIGRATION_MODE.violation(f"unknown mode {mode!r}") from None


def problems(given: Mapping[str, Any], unknown: Collection[str] = ()) -> list[RuleViolation]:
    """Apply every rule that can be applied to the inputs of a migration; return all violations.

    Args:
        given: The inputs by name, of whatever type they came; None is as if left out.
        unknown: Those whose value is not known yet, or not seen here, which are not judged.

    """
    found = Judgement(unknown)
    found.attempt_names(given, "destination")
    if given.get("notify_email") is not None:
        found.attempt(lambda: notified(str(given["notify_email"])), "notify_email")
    if given.get("mode") is not None:
        found.attempt(lambda: check_mode(str(given["mode"])), "mode")
    return found.violations
