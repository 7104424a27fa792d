"""Judging from the shards whether work goes on: which holder is lost, and whether the whole has stalled.

Everything is measured by one monotonic clock in one process, never by comparing the clocks of machines: a holder is
lost when the number of its heartbeats has not changed for a while that the judge has measured itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed


class StallWatch:
    """Raises once no key has moved for a window of monotonic time, however the wall clock jumps."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._last = clock()
        self._keys = -1

    def observe(self, keys: int) -> None:
        """Note how many keys have moved.

        Raises:
            MigrationFailed: Stalled; it was the same number for the whole window.

        """
        now = self._clock()
        # More than ever before: work that is lost and done again is no progress.
        if keys > self._keys:
            self._keys, self._last = keys, now
        elif now - self._last > self._window_s:
            raise MigrationFailed(Ending.STALLED, f"no archive key moved for {self._window_s:g} s")


class LeaseWatch:
    """Tells which holders have not shown a sign of life for a while."""

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[int, tuple[str, int, float]] = {}

    def lost(self, held: Iterable[tuple[int, str, int]]) -> set[str]:
        """Return the holders that are lost, from (shard, holder, heartbeats) of everything that is held now."""
        now, seen = self._clock(), {}
        lost = set()
        for shard, holder, heartbeats in held:
            before = self._seen.get(shard)
            since = before[2] if before is not None and before[:2] == (holder, heartbeats) else now
            seen[shard] = (holder, heartbeats, since)
            if now - since > self._lease_s:
                lost.add(holder)
        self._seen = seen
        return lost
