"""Whether this process itself was held up: then what it found out meanwhile says nothing about others."""

from __future__ import annotations

import threading
import time
from typing import Final

_EVERY_S: Final = 0.25
_HELD_UP_S: Final = 1.5


class Pulse:
    """Beats on a thread of its own, and knows when it last missed some.

    A process that is stopped (SIGSTOP, a suspended machine) or starved finds every deadline passed when it goes on:
    its requests have failed, and the servers are well.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._held_up_until = float("-inf")
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def held_up_since(self, moment: float) -> bool:
        """Tell whether the process was held up after a (monotonic) moment."""
        return self._held_up_until >= moment or time.monotonic() - self._last > _HELD_UP_S

    def _beat(self) -> None:
        while True:
            time.sleep(_EVERY_S)
            now = time.monotonic()
            if now - self._last > _HELD_UP_S:
                self._held_up_until = now
            self._last = now
