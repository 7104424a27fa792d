"""Turns of an organization's requests, who waits for one, and how long they rest before somebody else has them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
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
_APART_S: Final = 0.25
"""How far apart turns come back whose requests failed: those cost the most, lead to the next, and are of no use."""


def digest(credential: str) -> bytes:
    """Return what a credential is remembered by."""
    return hashlib.sha256(credential.encode()).digest()


class Turnstile:
    """Lets those who come with the same credential through one at a time, and not at once after each other."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def enter(self, credential: str) -> None:
        """Wait for one's turn."""
        lock = self._locks.setdefault(digest(credential), asyncio.Lock())
        await lock.acquire()
        asyncio.get_running_loop().call_later(_APART_S, lock.release)


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

    def __init__(self, organization: str, share: int, pace: Pace) -> None:
        self._organization, self.pace = organization, pace
        self._all = _Lane(share)
        self._clients = _Lane(share - int(share * _KEPT))
        self.remembered_until = 0.0
        """The moment from which there is nothing to remember, if nobody is present."""
        self.is_looked_after = False
        """Whether somebody will look then."""

    def _lanes(self, actor: Principal | None) -> list[_Lane]:
        """Return those of each of which somebody needs a turn, in this order."""
        return [self._clients, self._all] if actor and actor.role is Role.AUTHORITY else [self._all]

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
            f"{lane.present} requests of the organization {self._organization!r} wait for their answers, and "
            f"{lane.size} at a time are worked on",
            hint="wait for their answers, and try again in a moment",
        )

    def end_turn(self, actor: Principal, rests_s: float, *, failed: bool) -> None:
        """Let a turn rest, and longer where its request failed."""
        loop, lanes = asyncio.get_running_loop(), self._lanes(actor)
        now = loop.time()
        free_at = now + rests_s
        if failed:
            lanes[0].rested_at = max(lanes[0].rested_at, now) + _APART_S
            free_at = max(free_at, lanes[0].rested_at)
        for lane in lanes:
            if free_at <= now:
                lane.turns.release()
            else:
                loop.call_at(free_at, lane.turns.release)
        self.remembered_until = max(self.remembered_until, free_at, self.pace.forgotten_at())
