"""Who asks is looked at before anything of a request's body is read, and each organization has its share of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anyio import CapacityLimiter, Semaphore, move_on_after, to_thread
from fastapi import Request, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from pulumi_keystore.control_plane.api.problems import unavailable
from pulumi_keystore.control_plane.identity.roles import Principal
from pulumi_keystore.errors import KeystoreError, TooManyRequests

THREADS: Final = 200
"""How many requests are worked on at a time; most of them wait for a keystore or the database."""
doorkeepers: Final = CapacityLimiter(10)
"""Threads in which people are recognised: whoever is busy with an organization's keystore keeps nobody outside."""
_WAITING: Final = 4
"""How many may wait for each that is worked on: an online migration holds all for a second or two."""
_WAIT_S: Final = 20
Doorkeeper = Callable[[Request], Principal]
"""Tells who sends a request, or raises `KeystoreError`."""


class _Queue:
    """The requests of an organization: those that are worked on, and those that wait."""

    def __init__(self, share: int) -> None:
        self.turns = Semaphore(share)
        self.present = 0


class Admission:
    """Admits requests to the API and the console (ASGI middleware).

    Args:
        app: What answers those that are admitted.
        doorkeeper: Returns, for a path, what tells who sends a request by its head alone; None where anybody may.
        refuse: Makes the answer to a request.
        share: How many requests of one organization are worked on at a time.

    """

    def __init__(
        self,
        app: ASGIApp,
        doorkeeper: Callable[[str], Doorkeeper | None],
        refuse: Callable[[Request, KeystoreError], Response],
        share: int,
    ) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._refuse = refuse
        self._share = share
        self._queues: dict[str, _Queue] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope.get("path", "")
        recognise = self._doorkeeper(path) if scope["type"] == "http" else None
        if recognise is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            actor = await to_thread.run_sync(recognise, request, limiter=doorkeepers)
        except KeystoreError as error:
            await self._refuse(request, error)(scope, receive, send)
            return
        except SQLAlchemyError as error:
            await self._refuse(request, unavailable(error))(scope, receive, send)
            return
        request.state.actor = actor
        organization = _organization(path)
        if organization is None or actor.organization not in (None, organization):
            await self._app(scope, receive, send)
        else:
            await self._in_turn(organization, request, receive, send)

    async def _in_turn(self, organization: str, request: Request, receive: Receive, send: Send) -> None:
        """Pass a request on when fewer of its organization are worked on; nothing of its body is read before."""
        queue = self._queues.setdefault(organization, _Queue(self._share))
        queue.present += 1
        try:
            admitted = False
            if queue.present <= self._share * (1 + _WAITING):
                with move_on_after(_WAIT_S):
                    await queue.turns.acquire()
                    admitted = True
            if not admitted:
                refusal = TooManyRequests(
                    f"{queue.present} requests of the organization {organization!r} wait for their answers, and "
                    f"{self._share} at a time are worked on",
                    hint="wait for their answers, and try again in a moment",
                )
                await self._refuse(request, refusal)(request.scope, receive, send)
                return
            try:
                await self._app(request.scope, receive, send)
            finally:
                queue.turns.release()
        finally:
            queue.present -= 1
            if not queue.present:
                del self._queues[organization]


def _organization(path: str) -> str | None:
    """Return the organization that a request is about, None where it is about none, or the organization itself."""
    parts = path.split("/", 4)
    return parts[3] if len(parts) > 4 and parts[2] == "organizations" else None  # noqa: PLR2004
