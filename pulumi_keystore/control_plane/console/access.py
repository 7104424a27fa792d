"""Who looks at a page: the signed-in visitor, and proof that a form is one of ours."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import quote, urlsplit

import structlog
from fastapi import Depends, Form, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.api.access import Services
from pulumi_keystore.control_plane.api.problems import too_large
from pulumi_keystore.control_plane.console.render import page
from pulumi_keystore.control_plane.identity import sessions
from pulumi_keystore.control_plane.identity.roles import RIGHTS, Principal, Right
from pulumi_keystore.errors import (
    InvalidInput,
    KeystoreError,
    NotAllowed,
    NotAuthenticated,
    ServiceUnavailable,
    TooLarge,
)

COOKIE: Final = "keystore_console"
HOME: Final = "/console"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is signed in; the cookie is in no repr."""

    actor: Principal
    form_token: str

    def __repr__(self) -> str:
        return f"Visitor({self.actor.name!r})"

    @property
    def may_manage(self) -> bool:
        """Whether changes may be made."""
        return Right.MANAGE in RIGHTS[self.actor.role]


def _visitor(request: Request, services: Services) -> Visitor:
    cookie = request.cookies.get(COOKIE, "")
    with services.plane.transaction() as session:
        actor = sessions.resume(session, cookie, now_utc())
    request.state.principal = actor.name
    return Visitor(actor, sessions.form_token(cookie))


def require_same_site(request: Request) -> None:
    """Raise where another site sends the request.

    Raises:
        NotAllowed: It does, as far as the browser tells.

    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    host = request.headers.get("host")
    foreign = site not in (None, "same-origin", "none") or (origin is not None and urlsplit(origin).netloc != host)
    if foreign:
        raise NotAllowed("this form was sent by another site", hint="open the page here and send it again")


def _sender(request: Request, services: Services, form_token: Annotated[str, Form(max_length=200)] = "") -> Visitor:
    require_same_site(request)
    visitor = _visitor(request, services)
    if not sessions.is_form_token(request.cookies.get(COOKIE, ""), form_token):
        raise NotAllowed("this form does not belong to your session", hint="open the page again and send it from there")
    return visitor


Visit = Annotated[Visitor, Depends(_visitor)]
"""Whoever looks at a page."""
Sent = Annotated[Visitor, Depends(_sender)]
"""Whoever sends a form."""


def local_path(wanted: str) -> str:
    """Return where to go after signing in: a page of ours, or the first one."""
    plain = wanted.isascii() and wanted.isprintable() and "\\" not in wanted and "//" not in wanted
    return wanted if plain and (wanted == HOME or wanted.startswith(f"{HOME}/")) else HOME


def refusal(error: KeystoreError) -> Response:
    """Return the page that tells of an error."""
    response = page("error.html", error.status, error=error)
    response.headers.update(_HEADERS)
    return response


class Page(APIRoute):
    """A route that answers with pages, also where something is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with its errors made into pages."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                response = await handle(request)
            except NotAuthenticated:
                there = quote(request.url.path if request.method == "GET" else HOME)
                response = RedirectResponse(f"{HOME}/sign-in?next={there}", 303)
            except KeystoreError as error:
                response = refusal(error)
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"][1:2]) or "form"
                shown = InvalidInput(f"{where}: {first['msg']}", hint="go back and correct it")
                response = refusal(shown)
            except SQLAlchemyError as error:
                _log.error("database error", error=type(error).__name__)
                shown_fault = ServiceUnavailable("the service's database does not answer", hint="try again in a moment")
                response = refusal(shown_fault)
            except HTTPException as error:
                if error.status_code != TooLarge.status:
                    raise
                response = refusal(too_large())
            except Exception as error:  # noqa: BLE001 - whatever it is, people get a page
                _log.exception("unexpected error", error=type(error).__name__)
                unknown = KeystoreError("internal error", hint="see the service's log")
                response = refusal(unknown)
            response.headers.update(_HEADERS)
            return response

        return guarded
