"""The minutes of tests, and the reliability of the last hour, day and month (contract: Connection test)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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


QUARTER: Final = 15
"""Minutes of a bucket of a day."""
QUARTERS: Final = 24 * 60 // QUARTER
SIX_HOURS: Final = timedelta(hours=6)
"""What a bucket of a month spans."""
SIX_HOURS_OF_A_MONTH: Final = 30 * 4


class Bucket(StrEnum):
    """What a stretch of time was like."""

    ONLINE = "online"
    OFFLINE = "offline"
    PARTLY = "partly"
    """Some of its minutes were online and some offline."""
    UNKNOWN = "unknown"
    """No test was made: that says nothing about the keystore."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What the tests of a stretch of time have found: how many, how many were online, and why the others were not."""

    made: int = 0
    online: int = 0
    slowest_s: float | None = None
    why: str | None = None

    @property
    def bucket(self) -> Bucket:
        """What that was like."""
        if not self.made:
            return Bucket.UNKNOWN
        if self.online in (0, self.made):
            return Bucket.ONLINE if self.online else Bucket.OFFLINE
        return Bucket.PARTLY

    def __add__(self, other: Stretch) -> Stretch:
        """Return the tests of both stretches."""
        took = [each for each in (self.slowest_s, other.slowest_s) if each is not None]
        return Stretch(
            self.made + other.made, self.online + other.online, max(took, default=None), self.why or other.why
        )

    def __str__(self) -> str:
        """Say it in a few words."""
        took = "" if self.slowest_s is None else f", {self.slowest_s * 1000:,.0f} ms"
        if not self.made:
            return "no test made"
        if self.online == self.made:
            return (
                f"online{took}" if self.made == 1 else f"{self.made} tests online, the slowest{took[1:] or ' unknown'}"
            )
        why = f": {self.why}" if self.why else ""
        return f"offline{why}" if self.made == 1 else f"{self.made - self.online} of {self.made} tests offline{why}"


NONE: Final = Stretch()


@dataclass(frozen=True, slots=True)
class Reliability:
    """A timeline, oldest stretch first, and the share of tests that were online (None: none was made)."""

    begin: datetime
    bucket_s: float
    tests: tuple[Stretch, ...]

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """What each stretch was like."""
        return tuple(each.bucket for each in self.tests)

    @property
    def ratio(self) -> float | None:
        """Tests that were online by tests."""
        made = sum(each.made for each in self.tests)
        return sum(each.online for each in self.tests) / made if made else None


def reliability(
    tests: Mapping[int, Stretch], minutes: Minutes, now: datetime, each: int = 1, count: int = HOUR
) -> Reliability:
    """Return the timeline that ends with the minute under way.

    Args:
        tests: What was found, by minute.
        minutes: The keystore's minutes.
        now: The moment to look back from.
        each: How many minutes a bucket has.
        count: How many buckets there are.

    """
    last = minutes.at(now) // each
    first = last - count + 1
    found: defaultdict[int, Stretch] = defaultdict(Stretch)
    for minute in sorted(tests):
        found[minute // each] += tests[minute]
    whole = tuple(found.get(number, NONE) for number in range(first, last + 1))
    return Reliability(minutes.begin(first * each), each * minutes.length_s, whole)


def month(hours: Mapping[datetime, Stretch], now: datetime) -> Reliability:
    """Return the timeline of 30 days, by quarters of a day (UTC), from what was found in each hour."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    last = midnight + (now - midnight) // SIX_HOURS * SIX_HOURS
    begin = last - (SIX_HOURS_OF_A_MONTH - 1) * SIX_HOURS
    found: defaultdict[int, Stretch] = defaultdict(Stretch)
    for hour in sorted(hours):
        found[(hour - begin) // SIX_HOURS] += hours[hour]
    whole = tuple(found.get(number, NONE) for number in range(SIX_HOURS_OF_A_MONTH))
    return Reliability(begin, SIX_HOURS.total_seconds(), whole)
