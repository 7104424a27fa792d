"""Who asks is looked at before anything of a request's body is read, and each organization has its share of threads."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulumi_keystore.control_plane.api.pacing import Company, Meter, counted
from pulumi_keystore.control_plane.api.problems import announced_as_too_large, of_database
from pulumi_keystore.control_plane.api.queues import Queue, Turnstile, digest
from pulumi_keystore.control_plane.identity.roles import Principal
from pulumi_keystore.errors import KeystoreError, KeystoreFault, NotAuthenticated, TooManyRequests

THREADS: Final = 200
"""How many requests are worked on at a time; most of them wait for a keystore or the database."""
doorkeepers: Final = CapacityLimiter(10)
"""Threads in which people are recognised: whoever is busy with an organization's keystore keeps nobody outside."""
_HELD_S: Final = 1.0
"""How long a refusal is kept from those for whom no room is left to wait: they ask again when they have it."""
_WAITING_STRANGERS: Final = 100
"""How many may come at a time with a credential that nobody has come with lately."""
_FAILED: Final = (400, 408, 413, 422, TooManyRequests.status, KeystoreFault.status)
"""What was sent cannot be used, did not come, or is too much; or the keystore does not work."""


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """How people are recognised at a door.

    Attributes:
        credential: Returns what a request carries to be recognised by; None where it carries nothing.
        recognise: Tells who sends a request, or raises `KeystoreError`.

    """

    credential: Callable[[Request], str | None]
    recognise: Callable[[Request], Principal]


class _Acquaintances:
    """Who came with which credential lately: they wait where others of their organization do to be recognised again.

    Nothing is allowed to anybody because they are remembered.
    """

    _MOST: Final = 10_000

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Principal] = OrderedDict()

    def who_had(self, credential: str | None) -> Principal | None:
        """Return who was recognised by a credential the last time."""
        return self._known.get(digest(credential)) if credential else None

    def note(self, credential: str | None, actor: Principal | None) -> None:
        """Remember who was recognised by a credential, or that nobody was."""
        if not credential:
            return
        key = digest(credential)
        self._known.pop(key, None)
        if actor is not None:
            self._known[key] = actor
        if len(self._known) > self._MOST:
            self._known.popitem(last=False)


class Admission:
    """Admits requests to the API and the console (ASGI middleware).

    Args:
        app: What answers those that are admitted.
        doorkeeper: Returns, for a path, how it is found out who sends a request, by its head alone; None where anybody
            may.
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
        self._known = _Acquaintances()
        self._strangers = Turnstile(0.0, _WAITING_STRANGERS)
        self._queues: dict[str, Queue] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path, meter = scope.get("path", ""), Meter()
        meter.attach()  # one connection has the context of the request before
        doorkeeper = self._doorkeeper(path) if scope["type"] == "http" else None
        if doorkeeper is None:
            await self._app(scope, receive, send)
            return
        request, organization = Request(scope), _organization(path)
        if too_large := announced_as_too_large(request):
            # Whoever asks: to find out who it is would cost more than the refusal.
            await self._refuse(request, too_large)(scope, receive, send)
            return
        acquainted = self._known.who_had(doorkeeper.credential(request))
        # Who belongs to an organization takes of its share, whatever they ask for.
        whose = (acquainted and acquainted.organization) or organization
        queue = self._queues.get(whose) if whose else None
        if queue is not None and queue.room(acquainted) <= 0:
            # Who asks again at once gets no faster answers by it.
            await asyncio.sleep(_HELD_S)
            if acquainted is not None:
                self._pay(whose or "", queue, acquainted, meter.owed_s)
            await self._refuse(request, queue.refusal(acquainted))(scope, receive, send)
        elif acquainted is not None and whose is not None:
            await self._in_turn(whose, acquainted, meter, request, receive, send, doorkeeper)
        elif refusal := await self._get_acquainted(request, doorkeeper):
            await self._refuse(request, refusal)(scope, receive, send)
        elif (whose := request.state.actor.organization or organization) is None:
            await self._app(scope, receive, send)
        else:
            await self._in_turn(whose, request.state.actor, meter, request, receive, send)

    async def _get_acquainted(self, request: Request, doorkeeper: Doorkeeper) -> KeystoreError | None:
        """Recognise somebody who is in nobody's queue; those with one credential are looked up one at a time."""
        credential = doorkeeper.credential(request)
        try:
            async with self._strangers.passing(credential) if credential else nullcontext():
                return await self._recognise(request, doorkeeper)
        except TooManyRequests as refusal:
            return refusal

    async def _recognise(self, request: Request, doorkeeper: Doorkeeper) -> KeystoreError | None:
        """Find out who sends a request; return what it is refused with, if nobody does."""
        credential = doorkeeper.credential(request)
        try:
            actor = await to_thread.run_sync(counted(doorkeeper.recognise), request, limiter=doorkeepers)
        except NotAuthenticated as error:
            self._known.note(credential, None)
            return error
        except KeystoreError as error:
            return error
        except SQLAlchemyError as error:
            return of_database(error)
        self._known.note(credential, actor)
        request.state.actor = actor
        if request.url.path != "/metrics":  # which is read by no person
            whose = actor.organization or _organization(request.url.path)
            self._company.enter(whose or "", time.monotonic())
        return None

    async def _in_turn(
        self,
        organization: str,
        actor: Principal,
        meter: Meter,
        request: Request,
        receive: Receive,
        send: Send,
        doorkeeper: Doorkeeper | None = None,
    ) -> None:
        """Pass a request on when fewer of its organization are worked on; nothing of its body is read before.

        Args:
            organization: Whose share it takes of.
            actor: Who sends it, or is likely to.
            meter: What it has used up to here.
            request: Its head.
            receive: Gives its body.
            send: Takes its answer.
            doorkeeper: Recognises those who were only recognised earlier.

        """
        with self._present(organization, actor) as queue:
            pay = partial(self._pay, organization, queue, actor)
            if not await queue.has_turn(actor):
                pay(meter.owed_s)
                await self._refuse(request, queue.refusal(actor))(request.scope, receive, send)
            else:
                succeeded, meter.pay = False, pay

                async def noting(message: Message) -> None:
                    nonlocal succeeded
                    if message["type"] == "http.response.start":
                        succeeded = not _has_failed(message["status"])
                    await send(message)

                try:
                    if refusal := await self._refusal(request, doorkeeper):
                        await self._refuse(request, refusal)(request.scope, receive, noting)
                    else:
                        await self._app(request.scope, receive, noting)
                finally:
                    queue.end_turn(actor, pay(meter.owed_s), failed=not succeeded)

    @contextmanager
    def _present(self, organization: str, actor: Principal) -> Iterator[Queue]:
        """Count somebody in the queue of an organization, which is forgotten when there is nothing to remember."""
        queue = self._queues.get(organization)
        if queue is None:
            queue = self._queues[organization] = Queue(organization, self._share, self._processor)
        try:
            with queue.presence(actor):
                yield queue
        finally:
            self._forget(organization, queue)

    def _pay(self, organization: str, queue: Queue, actor: Principal, owed_s: float) -> float:
        """Charge an organization; return for how many seconds what has cost it is to rest."""
        return queue.pay(actor, owed_s, alone=not self._company.has(organization, time.monotonic()))

    async def _refusal(self, request: Request, doorkeeper: Doorkeeper | None) -> KeystoreError | None:
        """Return what a request that has its turn is refused with."""
        if doorkeeper is not None and (refusal := await self._recognise(request, doorkeeper)):
            return refusal
        # Who only looks changes nothing, and needs no thread for it.
        looks = request.method in ("GET", "HEAD")
        return None if looks else await to_thread.run_sync(self._refused, request)

    def _refused(self, request: Request) -> KeystoreError | None:
        try:
            self._check(request.state.actor)
        except KeystoreError as error:
            return error
        except SQLAlchemyError as error:
            return of_database(error)
        return None

    def _forget(self, organization: str, queue: Queue) -> None:
        """Forget an organization that has left, now or when there is nothing to remember of it."""
        if not queue.is_empty or queue.is_looked_after:
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
