"""What the requests of an organization cost the service's processor, and when they have paid for it.

Requests that each take a few milliseconds, sent sixteen at a time without a pause, would otherwise take all of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final, TypeVar

from fastapi.routing import APIRoute

from pulumi_keystore.vault import transport

T = TypeVar("T")
_BURST_S: Final = 0.5
"""Seconds of a processor that an organization which has asked for little may use at once."""
_LONGEST_S: Final = 60.0
"""For how long it pays at the most: one costly request is not held against its users for longer."""
_OFTEN_S: Final = 0.05
"""After how much a request that goes on is charged."""
_REST_S: Final = 2.0
"""How long it rests at a time: other requests that it has sent meanwhile wait for their answers."""
_EACH_S: Final = 0.004
"""What each request takes beside its thread: it is read and recognised, and its answer is written and logged."""


class Meter:
    """Adds up what the threads that work on one request use of the processor, in seconds."""

    def __init__(self) -> None:
        self.owed_s = _EACH_S
        """What has not been paid for."""
        self.pay: Callable[[float], float] = lambda _: 0.0
        """Pays for so much at once, and returns for how many seconds the one who pays is to wait."""
        self._seen = threading.local()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what this thread uses meanwhile."""
        self._seen.until = time.thread_time()
        try:
            yield
        finally:
            self._count()

    def _count(self) -> None:
        now = time.thread_time()
        self.owed_s += now - getattr(self._seen, "until", now)
        self._seen.until = now

    def rest(self) -> None:
        """Pay for what was used up to now, and wait a little where it is more than there is a right to.

        One request may go on for minutes: it is not charged at its end alone. (Enrolments are: others of their
        organization may wait for them, see `runtime.gate`.)
        """
        self._count()
        if self.owed_s >= _OFTEN_S:
            owed, self.owed_s = self.owed_s, 0.0
            time.sleep(min(self.pay(owed), _REST_S))

    def attach(self) -> None:
        """Have this meter count what is done in the present context."""
        _meter.set(self)
        transport.rest.set(self.rest)


_meter = ContextVar("meter", default=Meter())  # noqa: B039 - of what nobody pays for


def charge(seconds: float) -> None:
    """Add to what the present request has used."""
    _meter.get().owed_s += seconds


class Metered(APIRoute):
    """A route whose work is counted."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        # One without a thread of its own is counted by nobody.
        super().__init__(path, endpoint if iscoroutinefunction(endpoint) else counted(endpoint), **options)


def counted(call: Callable[..., T]) -> Callable[..., T]:
    """Return a function that does the same, and what it uses of the processor is counted."""

    @wraps(call)
    def with_meter(*args: Any, **kwargs: Any) -> T:
        with _meter.get().running():
            return call(*args, **kwargs)

    return with_meter


def metered(pieces: Iterable[str]) -> Iterator[str]:
    """Pass on the pieces of an answer that is made while it is sent; what each takes is counted."""
    source = iter(pieces)
    while True:
        with _meter.get().running():
            piece = next(source, None)
        if piece is None:
            return
        yield piece


class Pace:
    """Tells when an organization has paid for what it used, at so much of a processor. Any thread may ask.

    Args:
        share: Seconds of a processor that it may use in a second.

    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._paid_at = float("-inf")
        self._lock = threading.Lock()

    def pay(self, now: float, spent_s: float, *, alone: bool = False) -> float:
        """Return the moment at which something has been paid for.

        Args:
            now: Seconds, of any clock that goes forward.
            spent_s: Seconds of a processor.
            alone: Whether nobody else wants it: then nothing is owed, and what may be used at once is used up.

        """
        with self._lock:
            begins = max(self._paid_at, now - _BURST_S / self._share)
            self._paid_at = min(begins + spent_s / self._share, now if alone else now + _LONGEST_S)
            return max(self._paid_at, now)

    def forgotten_at(self) -> float:
        """Return the moment from which it is as if nothing had been used."""
        return self._paid_at + _BURST_S / self._share


class Company:
    """Remembers whether an organization is not alone: there is no reason to let one wait for nobody."""

    _WITHIN_S: Final = 10.0

    def __init__(self) -> None:
        self._latest: tuple[str, float] = ("", float("-inf"))
        self._before = float("-inf")
        """When somebody else than the latest one was here."""

    def enter(self, who: str, now: float) -> None:
        """Note that somebody asks."""
        if who != self._latest[0]:
            self._before = self._latest[1]
        self._latest = (who, now)

    def has(self, who: str, now: float) -> bool:
        """Tell whether somebody else has asked lately."""
        other = self._before if who == self._latest[0] else self._latest[1]
        return now - other < self._WITHIN_S
