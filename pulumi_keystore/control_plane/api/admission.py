"""Who asks is looked at before anything of a request's body is read, and each organization has its share of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from anyio import CapacityLimiter, Semaphore, move_on_after, to_thread
from fastapi import Request, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulumi_keystore.control_plane.api.pacing import Company, Meter, Pace
from pulumi_keystore.control_plane.api.problems import announced_as_too_large, of_database
from pulumi_keystore.control_plane.identity.roles import Principal
from pulumi_keystore.errors import KeystoreError, KeystoreFault, TooManyRequests

THREADS: Final = 200
"""How many requests are worked on at a time; most of them wait for a keystore or the database."""
doorkeepers: Final = CapacityLimiter(10)
"""Threads in which people are recognised: whoever is busy with an organization's keystore keeps nobody outside."""
_WAITING: Final = 4
"""How many may wait for each that is worked on: an online migration holds all for a second or two."""
_WAIT_S: Final = 20
_APART_S: Final = 0.25
"""How far apart turns come back whose requests failed: those cost the most, lead to the next, and are of no use."""
_FAILED: Final = (400, 408, 413, 422, TooManyRequests.status, KeystoreFault.status)
"""What was sent cannot be used, did not come, or is too much; or the keystore does not work."""
Doorkeeper = Callable[[Request], Principal]
"""Tells who sends a request, or raises `KeystoreError`."""


class _Queue:
    """The requests of an organization: those that are worked on, those that wait, and the turns that rest."""

    def __init__(self, organization: str, share: int, pace: Pace) -> None:
        self._organization, self._share, self._pace = organization, share, pace
        self.turns = Semaphore(share)
        self.present = 0
        self.remembered_until = 0.0
        """The moment from which there is nothing to remember, if nobody is present."""
        self.is_looked_after = False
        """Whether somebody will look then."""
        self._rested_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether nobody else may wait."""
        return self.present >= self._share * (1 + _WAITING)

    def refusal(self) -> TooManyRequests:
        """Return what is told to those who may not wait, or have waited too long."""
        return TooManyRequests(
            f"{self.present} requests of the organization {self._organization!r} wait for their answers, and "
            f"{self._share} at a time are worked on",
            hint="wait for their answers, and try again in a moment",
        )

    def end_turn(self, spent_s: float, *, alone: bool, failed: bool) -> None:
        """Let a turn rest until it is paid for.

        Args:
            spent_s: Seconds of a processor that its request took.
            alone: Whether no other organization asks.
            failed: Whether its request failed.

        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        free_at = self._pace.pay(now, spent_s, alone=alone)
        if failed:
            self._rested_at = max(self._rested_at, now) + _APART_S
            free_at = max(free_at, self._rested_at)
        if free_at <= now:
            self.turns.release()
        else:
            loop.call_at(free_at, self.turns.release)
        self.remembered_until = max(self.remembered_until, free_at, self._pace.forgotten_at())


class Admission:
    """Admits requests to the API and the console (ASGI middleware).

    Args:
        app: What answers those that are admitted.
        doorkeeper: Returns, for a path, what tells who sends a request by its head alone; None where anybody may.
        check: Raises `KeystoreError` for a request to change something that somebody who was admitted may not make.
        refuse: Makes the answer to a request.
        share: How many requests of one organization are worked on at a time.
        processor: How much of a processor they may take while others ask, too.

    """

    def __init__(
        self,
        app: ASGIApp,
        doorkeeper: Callable[[str], Doorkeeper | None],
        check: Callable[[Principal], None],
        refuse: Callable[[Request, KeystoreError], Response],
        share: int,
        processor: float,
    ) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._check = check
        self._refuse = refuse
        self._share = share
        self._processor = processor
        self._company = Company()
        self._queues: dict[str, _Queue] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope.get("path", "")
        recognise = self._doorkeeper(path) if scope["type"] == "http" else None
        if recognise is None:
            await self._app(scope, receive, send)
            return
        request, organization = Request(scope), _organization(path)
        if refusal := announced_as_too_large(request):
            # Whoever asks, here and below: to find out who it is would cost more than the refusal.
            await self._refuse(request, refusal)(scope, receive, send)
            return
        queue = self._queues.get(organization) if organization else None
        if queue is not None and queue.is_full:
            await self._refuse(request, queue.refusal())(scope, receive, send)
            return
        try:
            actor = await to_thread.run_sync(recognise, request, limiter=doorkeepers)
        except KeystoreError as error:
            await self._refuse(request, error)(scope, receive, send)
            return
        except SQLAlchemyError as error:
            await self._refuse(request, of_database(error))(scope, receive, send)
            return
        request.state.actor = actor
        # Who belongs to an organization takes of its share, whatever they ask for.
        whose = actor.organization or organization
        if path != "/metrics":  # which is read by no person
            self._company.enter(whose or "", asyncio.get_running_loop().time())
        if whose is None:
            await self._app(scope, receive, send)
        else:
            await self._in_turn(whose, request, receive, send)

    async def _in_turn(self, organization: str, request: Request, receive: Receive, send: Send) -> None:
        """Pass a request on when fewer of its organization are worked on; nothing of its body is read before."""
        queue = self._queues.get(organization)
        if queue is None:
            queue = self._queues[organization] = _Queue(organization, self._share, Pace(self._processor))
        is_full = queue.is_full
        queue.present += 1
        try:
            admitted = False
            if not is_full:
                with move_on_after(_WAIT_S):
                    await queue.turns.acquire()
                    admitted = True
            if not admitted:
                await self._refuse(request, queue.refusal())(request.scope, receive, send)
                return
            succeeded, meter = False, Meter()
            meter.attach()

            async def noting(message: Message) -> None:
                nonlocal succeeded
                if message["type"] == "http.response.start":
                    succeeded = not _has_failed(message["status"])
                await send(message)

            try:
                # Who only looks changes nothing, and needs no thread for it.
                looks = request.method in ("GET", "HEAD")
                if refusal := None if looks else await to_thread.run_sync(self._refused, request):
                    await self._refuse(request, refusal)(request.scope, receive, noting)
                else:
                    await self._app(request.scope, receive, noting)
            finally:
                alone = not self._company.has(organization, asyncio.get_running_loop().time())
                queue.end_turn(meter.spent_s, alone=alone, failed=not succeeded)
        finally:
            queue.present -= 1
            self._forget(organization, queue)

    def _refused(self, request: Request) -> KeystoreError | None:
        try:
            self._check(request.state.actor)
        except KeystoreError as error:
            return error
        except SQLAlchemyError as error:
            return of_database(error)
        return None

    def _forget(self, organization: str, queue: _Queue) -> None:
        """Forget an organization that has left, now or when there is nothing to remember of it."""
        if queue.present or queue.is_looked_after:
            return
        loop = asyncio.get_running_loop()
        if queue.remembered_until <= loop.time():
            del self._queues[organization]
            return

        def look() -> None:
            queue.is_looked_after = False
            self._forget(organization, queue)

        queue.is_looked_after = True
        loop.call_at(queue.remembered_until, look)


def _has_failed(status: int) -> bool:
    return status in _FAILED or status >= 500  # noqa: PLR2004


def _organization(path: str) -> str | None:
    """Return the organization that a request is about, None where it is about none."""
    parts = path.split("/", 4)
    return parts[3] if len(parts) > 3 and parts[2] == "organizations" else None  # noqa: PLR2004
