"""Who asks is looked at before anything of a request's body is read, and each organization has its share of threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from anyio import CapacityLimiter, to_thread
from fastapi import Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.identity.roles import Principal
from pulumi_keystore.errors import KeystoreError, TooManyRequests

THREADS: Final = 200
"""How many requests are worked on at a time; most of them wait for a keystore or the database."""
_DOORKEEPERS: Final = 10
_OPEN: Final = ("/v1/openapi.json",)
"""What of the API needs no token."""


class Admission:
    """Admits requests to the API (ASGI middleware).

    Args:
        app: What answers those that are admitted.
        services: What tokens are looked up with.
        refuse: Makes the answer to a request for a path.
        share: How many requests of one organization are worked on at a time.

    """

    def __init__(
        self, app: ASGIApp, services: ServicesOfApp, refuse: Callable[[str, KeystoreError], Response], share: int
    ) -> None:
        self._app = app
        self._services = services
        self._refuse = refuse
        self._share = share
        # Whoever is busy with an organization's keystore keeps nobody from being recognised.
        self._doorkeepers = CapacityLimiter(_DOORKEEPERS)
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith("/v1/") or path in _OPEN:
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("authorization", "")
        try:
            actor = await to_thread.run_sync(self._recognise, given, limiter=self._doorkeepers)
        except KeystoreError as error:
            await self._refuse(path, error)(scope, receive, send)
            return
        scope.setdefault("state", {}).update(actor=actor, principal=actor.name)
        organization = _organization(path)
        if organization is None or actor.organization not in (None, organization):
            await self._app(scope, receive, send)
        elif self._under_way[organization] >= self._share:
            refusal = TooManyRequests(
                f"{self._share} requests of the organization {organization!r} are being worked on",
                hint="wait for their answers, and try again in a moment",
            )
            await self._refuse(path, refusal)(scope, receive, send)
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

    def _recognise(self, given: str) -> Principal:
        scheme, _, token = given.partition(" ")
        with self._services.plane.transaction() as session:
            return tokens.authenticate(session, token if scheme.lower() == "bearer" else None, now_utc())


def _organization(path: str) -> str | None:
    """Return the organization that a request is about, None where it is about none, or the organization itself."""
    parts = path.split("/", 4)
    return parts[3] if len(parts) > 4 and parts[2] == "organizations" else None  # noqa: PLR2004
