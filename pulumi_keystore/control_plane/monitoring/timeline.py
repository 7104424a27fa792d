"""The minutes of tests, and the reliability of the last hour (contract: Connection test)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

HOUR: Final = 60
PUT_BACK: Final = 2
"""How many minutes the clocks of several processes may differ; more is a clock that was put back."""


@dataclass(frozen=True, slots=True)
class Minutes:
    """The minutes of one keystore: they begin at a moment of its own, so that not all are tested at once.

    Args:
        phase: Where in the minute the test is made, from 0 to below 1.
        length_s: How long a minute is; other than 60 in tests and demos only.

    """

    phase: float = 0.0
    length_s: float = 60.0

    def at(self, now: datetime) -> int:
        """Return the number of the minute that a moment lies in."""
        return math.floor(now.timestamp() / self.length_s - self.phase)

    def begin(self, minute: int) -> datetime:
        """Return the moment at which a minute begins."""
        return datetime.fromtimestamp((minute + self.phase) * self.length_s, UTC)


def is_due(minute: int, last: int | None) -> bool:
    """Tell whether a keystore has to be tested: once a minute, and also after the clock was put back."""
    return last is None or minute > last or minute < last - PUT_BACK


class Bucket(StrEnum):
    """What one minute was like."""

    ONLINE = "online"
    OFFLINE = "offline"
    UNKNOWN = "unknown"
    """No test was made: that says nothing about the keystore."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """The last hour, oldest minute first, and the ratio of tested minutes that were online (None: none was tested)."""

    begin: datetime
    buckets: tuple[Bucket, ...]

    @property
    def ratio(self) -> float | None:
        """Online minutes by tested minutes."""
        tested = [bucket for bucket in self.buckets if bucket is not Bucket.UNKNOWN]
        return tested.count(Bucket.ONLINE) / len(tested) if tested else None


def reliability(results: Mapping[int, bool], minutes: Minutes, now: datetime) -> Reliability:
    """Return the reliability of the 60 minutes that end with the one under way.

    Args:
        results: Whether the keystore was online, by minute.
        minutes: The keystore's minutes.
        now: The moment to look back from.

    """
    last = minutes.at(now)
    first = last - HOUR + 1
    names = {True: Bucket.ONLINE, False: Bucket.OFFLINE, None: Bucket.UNKNOWN}
    return Reliability(minutes.begin(first), tuple(names[results.get(minute)] for minute in range(first, last + 1)))
