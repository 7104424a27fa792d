"""What the service serves: the API, the metrics and the console."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Final

import structlog
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulumi_keystore.control_plane.api import access as api_access
from pulumi_keystore.control_plane.api import (
    archive_keys,
    health,
    keystores,
    migrations,
    organizations,
    safety,
    service,
    tokens,
)
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.api.admission import THREADS, Admission, Doorkeeper
from pulumi_keystore.control_plane.api.problems import BodyLimit, describe, handle_errors, problem
from pulumi_keystore.control_plane.console import access as console_access
from pulumi_keystore.control_plane.console import keystore_forms, migration_forms, organization_forms, pages
from pulumi_keystore.control_plane.identity.roles import RIGHTS, Principal, Right
from pulumi_keystore.control_plane.organizations import history
from pulumi_keystore.errors import KeystoreError, NotFound

_DESCRIPTION: Final = "/v1/openapi.json"
_log = structlog.get_logger(__name__)


def create(services: ServicesOfApp | None) -> FastAPI:
    """Return the application; without services it can only describe itself (OpenAPI)."""
    app = FastAPI(
        title="pulumi-keystore control plane",
        version=version("pulumi-keystore"),
        docs_url=None,
        redoc_url=None,
        openapi_url=_DESCRIPTION,
        lifespan=_with_threads,
    )
    app.state.services = services
    app.add_middleware(BodyLimit, refuse=_refuse)
    if services is not None:
        settings = services.plane.settings
        app.add_middleware(
            Admission,
            doorkeeper=partial(_doorkeeper, services),
            check=partial(_require_changes_left, services),
            refuse=_refuse,
            share=settings.requests_per_organization,
            processor=settings.processor_per_organization,
        )
    app.add_middleware(_RequestLog)
    handle_errors(app, _nothing)
    describe(app)

    app.include_router(service.probes)
    for noun in (service, organizations, keystores, health, migrations, archive_keys, safety, tokens):
        app.include_router(noun.router, prefix="/v1")
    app.include_router(health.metrics_router)
    app.include_router(pages.router)
    app.include_router(organization_forms.router)
    app.include_router(keystore_forms.router)
    app.include_router(migration_forms.router)
    app.include_router(pages.elsewhere)

    @app.get("/", include_in_schema=False)
    def to_console() -> RedirectResponse:
        return RedirectResponse("/console", 303)

    return app


@asynccontextmanager
async def _with_threads(_: FastAPI) -> AsyncIterator[None]:
    """Have more threads than those who wait for keystores can take."""
    current_default_thread_limiter().total_tokens = THREADS
    yield


def _doorkeeper(services: ServicesOfApp, path: str) -> Doorkeeper | None:
    """Return what recognises those who ask the API by their token, and who look at the console by their session."""
    if path == "/metrics" or (path.startswith("/v1/") and path != _DESCRIPTION):
        return api_access.doorkeeper(services)
    return console_access.doorkeeper(services) if console_access.is_private(path) else None


def _require_changes_left(services: ServicesOfApp, actor: Principal) -> None:
    """Raise where somebody has made so many changes that one more would be too much."""
    if Right.MANAGE in RIGHTS[actor.role] and actor.organization is not None:
        plane = services.plane
        with plane.transaction() as session:
            history.require_changes_left(session, actor.organization, plane.settings.changes_per_day)


def _refuse(request: Request, error: KeystoreError) -> Response:
    """Answer a browser with a page, and everybody else with a problem document."""
    if request.url.path.startswith(console_access.HOME):
        return console_access.refusal(request, error)
    return problem(error)


def _nothing(request: Request) -> Response:
    """Say that nothing is under a path: on a page where a browser asks for one, as mistyped addresses do."""
    if not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", ""):
        return console_access.refusal(request, NotFound("there is no such page", hint="start from the first page"))
    return problem(NotFound("there is nothing under this path", hint="see /v1/openapi.json"))


class _RequestLog:
    """Writes a line for each request, and has no answer kept by whoever passes it on (ASGI middleware).

    Args:
        app: What answers.

    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and write it down when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            request = Request(scope)
            actor = getattr(request.state, "actor", None)
            _log.info(
                "request",
                method=request.method,
                path=getattr(scope.get("route"), "path", "unknown"),
                status=status,
                ms=round((time.monotonic() - started) * 1000, 1),
                by=actor.name if actor else None,
            )
