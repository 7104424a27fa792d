"""Who asks is looked at before anything of a request's body is read, and each organization has its share of threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from anyio import CapacityLimiter, to_thread
from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pulumi_keystore.control_plane.identity.roles import Principal
from pulumi_keystore.errors import KeystoreError, TooManyRequests

THREADS: Final = 200
"""How many requests are worked on at a time; most of them wait for a keystore or the database."""
_DOORKEEPERS: Final = 10
Doorkeeper = Callable[[Request], Principal]
"""Tells who sends a request, or raises `KeystoreError`."""


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
        # Whoever is busy with an organization's keystore keeps nobody from being recognised.
        self._doorkeepers = CapacityLimiter(_DOORKEEPERS)
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope.get("path", "")
        recognise = self._doorkeeper(path) if scope["type"] == "http" else None
        if recognise is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            actor = await to_thread.run_sync(recognise, request, limiter=self._doorkeepers)
        except KeystoreError as error:
            await self._refuse(request, error)(scope, receive, send)
            return
        request.state.actor, request.state.principal = actor, actor.name
        organization = _organization(path)
        if organization is None or actor.organization not in (None, organization):
            await self._app(scope, receive, send)
        elif self._under_way[organization] >= self._share:
            refusal = TooManyRequests(
                f"{self._share} requests of the organization {organization!r} are being worked on",
                hint="wait for their answers, and try again in a moment",
            )
            await self._refuse(request, refusal)(scope, receive, send)
        else:
            await self._admit(organization, scope, receive, send)

    async def _admit(self, organization: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._under_way[organization] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way[organization] -= 1
            if not self._under_way[organization]:
                del self._under_way[organization]


def _organization(path: str) -> str | None:
    """Return the organization that a request is about, None where it is about none, or the organization itself."""
    parts = path.split("/", 4)
    return parts[3] if len(parts) > 4 and parts[2] == "organizations" else None  # noqa: PLR2004
