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
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.api.access import ServicesOfApp
from pulumi_keystore.control_plane.api.admission import Doorkeeper
from pulumi_keystore.control_plane.api.pacing import Metered
from pulumi_keystore.control_plane.api.problems import BodyTooLarge, of_database
from pulumi_keystore.control_plane.console.render import page
from pulumi_keystore.control_plane.console.wording import LABELS
from pulumi_keystore.control_plane.identity import sessions
from pulumi_keystore.control_plane.identity.roles import RIGHTS, Principal, Right
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import (
    InvalidInput,
    KeystoreError,
    NotAllowed,
    NotAuthenticated,
)

COOKIE: Final = "keystore_console"
HOME: Final = "/console"
SIGN_IN: Final = f"{HOME}/sign-in"
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

    @property
    def may_administer(self) -> bool:
        """Whether organizations may be created."""
        return self.actor.organization is None and Right.ADMINISTER in RIGHTS[self.actor.role]

    def may_edit(self, kind: Kind | str) -> bool:
        """Tell whether the settings of a keystore of that kind may be edited: those of the provider by the provider."""
        return self.may_manage and (
            kind == Kind.SELF_ADMINISTERED or (not self.actor.organization and kind != Kind.LEGACY)
        )


def is_private(path: str) -> bool:
    """Tell whether a page is for those alone who are signed in."""
    ours = path == HOME or path.startswith(f"{HOME}/")
    return ours and path != SIGN_IN and not path.startswith(f"{HOME}/static/")


def doorkeeper(services: ServicesOfApp) -> Doorkeeper:
    """Return what recognises visitors by their cookie, and refuses forms of other sites before they are read."""

    def credential(request: Request) -> str | None:
        return request.cookies.get(COOKIE)

    def recognise(request: Request) -> Principal:
        if request.method not in ("GET", "HEAD"):
            require_same_site(request)
        with services.plane.transaction() as session:
            return sessions.resume(session, credential(request), now_utc())

    return Doorkeeper(credential, recognise)


def _visitor(request: Request) -> Visitor:
    return Visitor(request.state.actor, sessions.form_token(request.cookies.get(COOKIE, "")))


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


def _sender(
    request: Request,
    visitor: Annotated[Visitor, Depends(_visitor)],
    form_token: Annotated[str, Form(max_length=200)] = "",
) -> Visitor:
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


def refusal(request: Request, error: KeystoreError) -> Response:
    """Return the page that tells of an error; who is not signed in is led to where that is done."""
    response: Response
    if isinstance(error, NotAuthenticated):
        there = quote(request.url.path if request.method == "GET" else HOME)
        response = RedirectResponse(f"{SIGN_IN}?next={there}", 303)
    else:
        # Where it is known who asks, the page is in their frame.
        visitor = _visitor(request) if hasattr(request.state, "actor") else None
        response = page("error.html", error.status, error=error, visitor=visitor)
    response.headers.update(_HEADERS)
    return response


class Page(Metered):
    """A route that answers with pages, also where something is wrong."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler with its errors made into pages."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                response = await handle(request)
            except KeystoreError as error:
                response = refusal(request, error)
            except RequestValidationError as error:
                first = error.errors()[0]
                prop = ".".join(str(part) for part in first["loc"][1:2])
                shown = InvalidInput(f"{LABELS.get(prop, 'This page')}: not understood", hint="go back and correct it")
                response = refusal(request, shown)
            except SQLAlchemyError as error:
                response = refusal(request, of_database(error))
            except BodyTooLarge as error:
                response = refusal(request, error.refusal)
            except HTTPException:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, people get a page
                _log.exception("unexpected error", error=type(error).__name__)
                unknown = KeystoreError("internal error", hint="see the service's log")
                response = refusal(request, unknown)
            response.headers.update(_HEADERS)
            return response

        return guarded
