"""What happened when: faults with their beginning and end, and notes."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Event:
    """Something that happened at one place, from `begin` to `end` seconds after the start."""

    where: str
    what: str
    begin: float
    end: float | None = None
    kind: str = "fault"
    """`fault`, `note`, `passed` or `failed`."""


@dataclass
class Timeline:
    """The events of one run; times are UTC and seconds since the start."""

    started: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def now(self) -> float:
        """Return the seconds since the start."""
        return (dt.datetime.now(dt.UTC) - self.started).total_seconds()

    def note(self, where: str, what: str, kind: str = "note") -> Event:
        """Record something of no duration."""
        event = Event(where, what, self.now(), kind=kind)
        event.end = event.begin
        with self._lock:
            self.events.append(event)
        return event

    def begin(self, where: str, what: str) -> None:
        """Record that a fault begins; nothing if it is there already."""
        with self._lock:
            if not any(self._open(where, what)):
                self.events.append(Event(where, what, self.now()))

    def end(self, where: str, *what: str) -> None:
        """Record that faults end; nothing for those that are not there."""
        with self._lock:
            for name in what:
                for event in self._open(where, name):
                    event.end = self.now()

    def _open(self, where: str, what: str) -> Iterator[Event]:
        return (
            event
            for event in self.events
            if (event.where, event.what, event.end, event.kind) == (where, what, None, "fault")
        )

    @contextlib.contextmanager
    def fault(self, where: str, what: str) -> Iterator[None]:
        """Record a fault for as long as the block lasts."""
        self.begin(where, what)
        try:
            yield
        finally:
            self.end(where, what)

    def take(self) -> Timeline:
        """Return everything so far as a timeline of its own, and begin anew."""
        with self._lock:
            taken = Timeline(self.started, self.events)
            self.started, self.events = dt.datetime.now(dt.UTC), []
        return taken

    @property
    def faults(self) -> list[Event]:
        """All faults, in the order they began."""
        return [event for event in self.events if event.kind == "fault"]

    def lines(self) -> list[str]:
        """Return one line an event, for a terminal."""
        texts = []
        for event in sorted(self.events, key=lambda each: each.begin):
            if event.kind != "fault":
                lasted = ""
            elif event.end is None:
                lasted = " (not healed)"
            else:
                lasted = f" (for {event.end - event.begin:.1f} s)"
            texts.append(f"{event.begin:8.2f} s  {event.where:<24} {event.what}{lasted}")
        return texts
