"""What the requests of an organization cost the service's processor, and when they have paid for it.

Requests that each take a few milliseconds, sent sixteen at a time without a pause, would otherwise take all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final

from fastapi.routing import APIRoute

_BURST_S: Final = 0.5
"""Seconds of a processor that an organization which has asked for little may use at once."""
_LONGEST_S: Final = 10.0
"""For how long it pays at the most: one costly request is not held against its users for minutes."""
_EACH_S: Final = 0.004
"""What each request takes beside its thread: it is read and recognised, and its answer is written and logged."""


class Meter:
    """Adds up what the threads that work on one request use of the processor, in seconds."""

    def __init__(self) -> None:
        self.spent_s = _EACH_S

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what this thread uses meanwhile."""
        begun = time.thread_time()
        try:
            yield
        finally:
            self.spent_s += time.thread_time() - begun

    def attach(self) -> None:
        """Have this meter count what is done in the present context."""
        _meter.set(self)


_meter = ContextVar("meter", default=Meter())  # noqa: B039 - of what nobody pays for


def charge(seconds: float) -> None:
    """Add to what the present request has used."""
    _meter.get().spent_s += seconds


class Metered(APIRoute):
    """A route whose work is counted."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, _metered(endpoint), **options)


def _metered(call: Callable[..., Any]) -> Callable[..., Any]:
    if iscoroutinefunction(call):
        return call  # it has no thread of its own

    @wraps(call)
    def counted(*args: Any, **kwargs: Any) -> Any:
        with _meter.get().running():
            return call(*args, **kwargs)

    return counted


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
    """Tells when an organization has paid for what it used, at so much of a processor.

    Args:
        share: Seconds of a processor that it may use in a second.

    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._paid_at = float("-inf")

    def pay(self, now: float, spent_s: float, *, alone: bool = False) -> float:
        """Return the moment at which something has been paid for.

        Args:
            now: Seconds, of any clock that goes forward.
            spent_s: Seconds of a processor.
            alone: Whether nobody else wants it: then nothing is owed, and what may be used at once is used up.

        """
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
