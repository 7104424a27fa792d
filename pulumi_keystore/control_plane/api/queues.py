"""Turns of an organization's requests, who waits for one, and how long they rest before somebody else has them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from weakref import WeakValueDictionary

from anyio import Semaphore, move_on_after

from pulumi_keystore.control_plane.api.pacing import Pace
from pulumi_keystore.control_plane.identity.roles import Principal, Role
from pulumi_keystore.errors import TooManyRequests

_WAITING: Final = 4
"""How many may wait for each that is worked on: an online migration holds all for a second or two."""
_WAIT_S: Final = 20
_KEPT: Final = 1 / 8
"""The part of an organization's turns that is kept for people and their tools: while a keystore is down its clients go
on asking, and who sees to it shall not wait behind them."""
APART_S: Final = 0.25
"""How far apart turns come back whose requests failed: those cost the most, lead to the next, and are of no use."""


def digest(credential: str) -> bytes:
    """Return what a credential is remembered by."""
    return hashlib.sha256(credential.encode()).digest()


class Turnstile:
    """Lets those who come with the same credential through one at a time.

    Args:
        apart_s: How far apart they come through.
        most: How many may be there at a time.

    """

    def __init__(self, apart_s: float, most: int) -> None:
        self._apart_s, self._most = apart_s, most
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._present: Counter[bytes] = Counter()

    @asynccontextmanager
    async def passing(self, credential: str) -> AsyncIterator[None]:
        """Wait for one's turn; the next one's comes when this ends.

        Raises:
            TooManyRequests: Too many have come with this credential.

        """
        key, loop = digest(credential), asyncio.get_running_loop()
        if self._present[key] >= self._most:
            raise TooManyRequests(f"{self._most} requests with this token are under way", hint="wait for their answers")
        self._present[key] += 1
        try:
            lock = self._locks.setdefault(key, asyncio.Lock())
            await lock.acquire()
            free_at = loop.time() + self._apart_s
            try:
                yield
            finally:
                loop.call_at(free_at, lock.release)
        finally:
            self._present[key] -= 1
            if not self._present[key]:
                del self._present[key]


class _Lane:
    """Some of an organization's turns."""

    def __init__(self, size: int) -> None:
        self.size, self.turns = size, Semaphore(size)
        self.present = 0
        """How many have or want one."""
        self.rested_at = 0.0
        """When the last of those comes back whose requests failed."""


class Queue:
    """The requests of an organization: those that are worked on, those that wait, and the turns that rest."""

    def __init__(self, organization: str, share: int, processor: float) -> None:
        self._organization = organization
        # What clients cost holds up no person, and what people cost is not there for clients.
        self._pace, self._peoples = Pace(processor), Pace(processor)
        self._all = _Lane(share)
        self._clients = _Lane(share - int(share * _KEPT))
        self.remembered_until = 0.0
        """The moment from which there is nothing to remember, if nobody is present."""
        self.is_looked_after = False
        """Whether somebody will look then."""

    def _lanes(self, actor: Principal | None) -> list[_Lane]:
        """Return those of each of which somebody needs a turn, in this order."""
        return [self._all] if actor is None or _is_person(actor) else [self._clients, self._all]

    def room(self, actor: Principal | None) -> int:
        """Return how many more like somebody may have or wait for a turn; below 0 where there are too many."""
        return min(lane.size * (1 + _WAITING) - lane.present for lane in self._lanes(actor))

    @property
    def is_empty(self) -> bool:
        """Whether nobody has or wants a turn."""
        return not self._all.present

    @contextmanager
    def presence(self, actor: Principal) -> Iterator[None]:
        """Count somebody who has or wants a turn."""
        lanes = self._lanes(actor)
        for lane in lanes:
            lane.present += 1
        try:
            yield
        finally:
            for lane in lanes:
                lane.present -= 1

    async def has_turn(self, actor: Principal) -> bool:
        """Wait for a turn; return False where too many wait, or it takes too long."""
        if self.room(actor) < 0:
            return False
        taken: list[_Lane] = []
        with move_on_after(_WAIT_S):
            try:
                for lane in self._lanes(actor):
                    await lane.turns.acquire()
                    taken.append(lane)
            except BaseException:
                for lane in taken:
                    lane.turns.release()
                raise
            return True
        return False

    def refusal(self, actor: Principal | None) -> TooManyRequests:
        """Return what is told to those who may not wait, or have waited too long."""
        lane = self._lanes(actor)[0]
        return TooManyRequests(
            f"the organization {self._organization!r} has too many requests at once: {lane.present} wait or run, and "
            f"{lane.size} may run at a time",
            hint="wait for their answers, and try again in a moment",
        )

    def pay(self, actor: Principal, spent_s: float, *, alone: bool) -> float:
        """Charge for so many seconds of a processor; return for how many seconds what has cost them is to rest.

        Args:
            actor: Whose request it was.
            spent_s: Seconds of a processor.
            alone: Whether no other organization asks.

        """
        now = time.monotonic()
        free_at = self._pace.pay(now, spent_s, alone=alone)
        if _is_person(actor):
            free_at = self._peoples.pay(now, spent_s, alone=alone)
        return free_at - now

    def end_turn(self, actor: Principal, rests_s: float, *, failed: bool) -> None:
        """Let a turn rest, and longer where its request failed."""
        loop, lanes = asyncio.get_running_loop(), self._lanes(actor)
        now = loop.time()
        free_at = now + rests_s
        if failed:
            lanes[0].rested_at = max(lanes[0].rested_at, now) + APART_S
            free_at = max(free_at, lanes[0].rested_at)
        for lane in lanes:
            if free_at <= now:
                lane.turns.release()
            else:
                loop.call_at(free_at, lane.turns.release)
        self.remembered_until = max(
            self.remembered_until, free_at, self._pace.forgotten_at(), self._peoples.forgotten_at()
        )


def _is_person(actor: Principal) -> bool:
    """Tell whether it is a person, or a tool of one, and no client that enrols keys or has them released."""
    return actor.role is not Role.AUTHORITY
