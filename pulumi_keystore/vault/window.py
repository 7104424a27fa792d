"""How many requests are under way at a server that may ask for fewer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_BETWEEN_CUTS_S: Final = 0.1


class Window:
    """How many flows may be under way: half as many after an answer that asks for fewer, then one more at a time.

    That is the additive increase and multiplicative decrease of TCP (RFC 5681). Answers to what was sent before the
    last cut say nothing new, so there is at most one cut in a tenth of a second.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._room = float(most)
        self._clock = clock
        self._last_cut = float("-inf")

    @property
    def size(self) -> int:
        """The number of flows that may be under way now, at least 1."""
        return int(self._room)

    def answered(self, status: int) -> None:
        """Learn from the HTTP status of an answer."""
        if status in (429, 503):
            now = self._clock()
            if now - self._last_cut >= _BETWEEN_CUTS_S:
                self._last_cut, self._room = now, max(1.0, self._room / 2)
        elif self._room < self._most:
            self._room = min(float(self._most), self._room + 1 / self._room)
