"""What the tests of a keystore's connection say about it (contract: Connection test)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pulumi_keystore.causes import Cause
from pulumi_keystore.vault.checkpoint import Checkpoint
from pulumi_keystore.vault.requests import Validity

NO_REQUEST: Final = "No request"
UNKNOWN: Final = "Unknown"
TESTS_AFTER_MIGRATION: Final = 5
"""Minutes of data that have to exist after a migration before they say anything."""
SILENCE: Final = 2
"""Minutes without a result after which the service itself is at fault: one may just be under way."""


class Status(StrEnum):
    """What is shown of a connection."""

    ONLINE = "Online"
    OFFLINE = "Offline"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Result:
    """What one test found.

    Attributes:
        online: Whether certificate login and an authorized read work.
        reason: "Host unavailable" or "Unable to authenticate" where they do not.
        detail: What exactly is wrong, and what to do about it; one line.
        warning: What is wrong although the keystore works, such as a sealed standby.
        seconds: How long the test took.
        checkpoint: What the keystore remembers of the latest decision.
        entries: How many entries lie there, where they were counted.
        cause: Why it does not work.
        certificate: How long the certificate is valid that the server has shown.

    """

    online: bool
    reason: str | None = None
    detail: str | None = None
    warning: str | None = None
    seconds: float = 0.0
    checkpoint: Checkpoint | None = None
    entries: int | None = None
    cause: Cause | None = None
    certificate: Validity | None = None


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest result, the minute it belongs to, and since when it has been the same."""

    minute: int
    result: Result
    since: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Connection:
    """Status, reason and detail as they are shown, and since when."""

    status: Status
    reason: str | None
    detail: str | None
    since: datetime | None
    warning: str | None = None
    cause: Cause | None = None


def judge(latest: Latest | None, minute: int, begun: datetime, migrated: datetime | None, tests: int) -> Connection:
    """Return what is shown of a keystore.

    Args:
        latest: Its latest result, None if there is none.
        minute: The minute it is now.
        begun: When the keystore was registered.
        migrated: When the migration ended that made it active, if there was one.
        tests: Results there have been since then, counted as far as `TESTS_AFTER_MIGRATION`.

    """
    if migrated is not None and tests < TESTS_AFTER_MIGRATION:
        told = "a migration has just completed; the status is known when there are 5 minutes of data"
        return Connection(Status.UNKNOWN, UNKNOWN, told, migrated)
    if latest is None:
        return Connection(Status.UNKNOWN, UNKNOWN, "it has not been tested yet", begun)
    if not latest.minute <= minute <= latest.minute + SILENCE:
        told = "the service has not run its own test; check the service; the keystore may be fine"
        return Connection(Status.OFFLINE, NO_REQUEST, told, latest.at)
    result = latest.result
    status = Status.ONLINE if result.online else Status.OFFLINE
    return Connection(status, result.reason, result.detail, latest.since, result.warning, result.cause)
