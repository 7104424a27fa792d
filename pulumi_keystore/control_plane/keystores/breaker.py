"""A keystore that does not work is asked by one caller every few seconds; the others are told what it was.

Each request to it would cost connections, a login and its wait, and come to the same; the time is that of others, whose
keystores work. (The pattern is known as a circuit breaker.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pulumi_keystore.errors import HostUnavailable, KeystoreFault, UnableToAuthenticate

_PATIENT_TIMES: Final = 5
"""Faults in a row before anybody is refused: a restart of a server, or one lost connection, is none of this."""
_ASK_AGAIN_S: Final = 5.0
_FORGET_S: Final = 60.0

Binding = tuple[int, int]
"""A keystore's id and the revision of its binding: another certificate is another login."""


@dataclass(slots=True)
class _Trouble:
    kind: type[KeystoreFault]
    summary: str
    hint: str
    times: int
    ask_at: float


class Breaker:
    """Remembers which keystores have failed several times in a row.

    Args:
        clock: Seconds that only grow.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._troubles: dict[Binding, _Trouble] = {}

    def admit(self, binding: Binding) -> None:
        """Let a caller through to a keystore that works, or whose turn it is to look whether it works again.

        Raises:
            KeystoreFault: It does not work; what it was.

        """
        with self._lock:
            trouble, now = self._troubles.get(binding), self._clock()
            if trouble is None or trouble.times < _PATIENT_TIMES:
                return
            if now >= trouble.ask_at:
                trouble.ask_at = now + _ASK_AGAIN_S
                return
            kind, summary, left_s = trouble.kind, trouble.summary, trouble.ask_at - now
            hint = f"it failed {trouble.times} times in a row and is asked again in {left_s:.0f} s{trouble.hint}"
        raise kind(summary, hint=hint)

    def note(self, binding: Binding, error: BaseException | None) -> None:
        """Take down what a use of a keystore came to.

        Only a fault of the keystore as a whole counts; any other is about what was asked.
        """
        with self._lock:
            if error is None:
                self._troubles.pop(binding, None)
            elif isinstance(error, (HostUnavailable, UnableToAuthenticate)):
                known = self._troubles.get(binding)
                times, hint = known.times + 1 if known else 1, f"; {error.hint}" if error.hint else ""
                ask_at = self._clock() + _ASK_AGAIN_S
                self._troubles[binding] = _Trouble(type(error), error.summary, hint, times, ask_at)

    def forget_old(self) -> None:
        """Forget the keystores that nobody has asked for a minute."""
        with self._lock:
            old = self._clock() - _FORGET_S
            self._troubles = {binding: one for binding, one in self._troubles.items() if one.ask_at > old}
