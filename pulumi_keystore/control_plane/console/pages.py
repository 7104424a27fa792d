"""The pages of the console: looking (what is changed by forms is in `forms`)."""

from __future__ import annotations

from datetime import datetime
from http import HTTPMethod
from typing import Annotated, Any, Final
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane import overview
from pulumi_keystore.control_plane.api.access import Services, ServicesOfApp
from pulumi_keystore.control_plane.api.admission import doorkeepers
from pulumi_keystore.control_plane.api.organizations import Format, history_file
from pulumi_keystore.control_plane.api.paging import Before
from pulumi_keystore.control_plane.api.queues import APART_S, Turnstile
from pulumi_keystore.control_plane.console.access import (
    COOKIE,
    HOME,
    SIGN_IN,
    Page,
    Sent,
    Visit,
    Visitor,
    local_path,
    require_same_site,
)
from pulumi_keystore.control_plane.console.render import STATIC, page
from pulumi_keystore.control_plane.identity import sessions
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.identity.tokens import PREFIX
from pulumi_keystore.control_plane.keystores import clean_ups
from pulumi_keystore.control_plane.migration import views as migration_views
from pulumi_keystore.control_plane.monitoring import incidents, monitors
from pulumi_keystore.control_plane.monitoring import views as monitoring_views
from pulumi_keystore.control_plane.organizations import history, keystores, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.declarations.migration import has_ended
from pulumi_keystore.declarations.monitor import Period
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.declarations.problems import Order, ProblemFilter
from pulumi_keystore.errors import KeystoreError, NotAuthenticated, NotFound

_FILES: Final = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "theme.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "icon-offline.svg": "image/svg+xml",
}
_EVERY_S: Final = 10
_EVERY_WHILE_MIGRATING_S: Final = 2
_MOST_BUSY: Final = 20
_SIGNING_IN: Final = 8
"""How many may sign in with one token at a time."""
"""How many organizations the banner names."""
_FIRST: Final = 10
"""How many organizations with problems come before all others."""
_HISTORY: Final = 100
CLEAN_UPS: Final = 20
"""How many that are pending are shown, and retried by the button."""
_LATEST_INCIDENTS: Final = 5
"""How many the page of an organization shows."""
_INCIDENTS: Final = 100
"""How many the page of a keystore shows."""
SAVED: Final = {
    "registered": "The keystore was proved and registered.",
    "edited": "The keystore was proved with the new settings, and they are in use.",
    "proved": "The keystore was proved: login, writing, reading, listing and deleting work.",
    "deleted": "The registration was deleted. Nothing was deleted on the keystore's server.",
    "alerts": "The alerts were saved.",
    "alerts-removed": "The alerts were removed: no one is alerted when this keystore is offline.",
    "alerts-tested": "The test was sent: the answers are below.",
    "canceled": "The migration is being canceled.",
    "undone": "The migration was undone.",
    "created": "The organization was created.",
    "recovered": "The organization was recovered. Verify its keys now (menu Actions).",
    "accepted": "The cluster was proved, and is used from now on.",
    "tested": "The keystore was tested now: this page shows the result.",
    "not-tested": "A test of this keystore is under way: the result is shown here in a moment.",
    "retried": "The keys that are left are being removed now.",
}
"""What a page says after a form led to it, by the word in its address: no other text can be put there."""

_turnstile = Turnstile(APART_S, _SIGNING_IN)
router = APIRouter(prefix=HOME, route_class=Page, include_in_schema=False)
elsewhere = APIRouter(prefix=HOME, route_class=Page, include_in_schema=False)
"""What no other page is found under; to be included last."""


@router.get("/static/{name}")
def static(name: str) -> Response:
    """Return a style sheet, a script or an icon."""
    if name not in _FILES:
        raise NotFound("the file does not exist")
    return Response((STATIC / name).read_bytes(), media_type=_FILES[name], headers={"Cache-Control": "max-age=3600"})


# An answer to HEAD shows no page.
@elsewhere.api_route("/{path:path}", methods=sorted({*HTTPMethod} - {HTTPMethod.HEAD}))
def no_page(path: str) -> Response:
    """Say on a page that there is none."""
    del path
    raise NotFound("there is no such page", hint="start from the first page")


# Signing in.


@router.get("/sign-in")
def sign_in_page(next: str = HOME) -> Response:  # noqa: A002 - its name in the URL
    """Ask for a token."""
    return page("sign_in.html", next=local_path(next), error=None)


@router.post("/sign-in")
async def sign_in(
    request: Request,
    services: Services,
    token: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=500)] = HOME,  # noqa: A002
) -> Response:
    """Begin a session."""
    require_same_site(request)

    def begin() -> str:
        with services.plane.transaction() as session:
            return sessions.begin(session, token, now_utc())[1]

    try:
        async with _turnstile.passing(token.strip().removeprefix(PREFIX)):
            cookie = await to_thread.run_sync(begin, limiter=doorkeepers)
    except NotAuthenticated:
        return page("sign_in.html", 401, next=local_path(next), error="This token is not valid or has expired.")
    response = RedirectResponse(local_path(next), 303)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(sessions.LIFETIME.total_seconds()),
        path=HOME,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/sign-out")
def sign_out(request: Request, _: Sent, services: Services) -> Response:
    """End the session."""
    with services.plane.transaction() as session:
        sessions.end(session, request.cookies.get(COOKIE))
    response = RedirectResponse(SIGN_IN, 303)
    response.delete_cookie(COOKIE, path=HOME)
    return response


# Looking.


@router.get("")
def home(
    visitor: Visit,
    services: Services,
    after: Annotated[str, Query(max_length=63)] = "",
    search: Annotated[str, Query(max_length=63)] = "",
    problem: ProblemFilter | None = None,
    sort: Order = Order.NAME,
) -> Response:
    """List the organizations that the visitor may see, a page at a time; where there is one, go there."""
    if visitor.actor.organization is not None:
        return RedirectResponse(f"{HOME}/organizations/{visitor.actor.organization}", 303)
    visitor.actor.require(Right.VIEW)
    plane, now, search = services.plane, now_utc(), search.strip()
    with plane.transaction() as session:
        found = overview.list_page(
            session, plane, now, after=after, limit=registry.PAGE + 1, search=search, problem=problem, order=sort
        )
        busy = registry.in_maintenance(session, _MOST_BUSY)
        counts = overview.count_problems(session, plane, now)
        # Who looks for nothing in particular sees first what has to be looked after.
        worst = (
            []
            if after or search or problem or sort is not Order.NAME
            else overview.worst(session, plane, now, counts, _FIRST)
        )
        shown = overview.describe(session, plane, [*worst, *found[: registry.PAGE]], now)
    first, rows = shown[: len(worst)], shown[len(worst) :]
    more = rows[-1]["name"] if len(found) > registry.PAGE else ""
    return page(
        "organizations.html",
        visitor=visitor,
        rows=rows,
        first=first,
        counts={word: count for word, count in counts.items() if count},
        busy=busy,
        more=more,
        after=after,
        search=search,
        problem=problem,
        sort=sort,
    )


@router.get("/organizations/{organization}")
def organization_page(
    organization: str, visitor: Visit, services: Services, saved: str = "", period: Period = Period.HOUR
) -> Response:
    """Show the keystores of an organization, the active one first, or the progress of its migration."""
    shown = view(services, visitor, organization, period)
    return page("keystore.html", visitor=visitor, saved=SAVED.get(saved), **shown)


@router.get("/organizations/{organization}/live")
def live(organization: str, visitor: Visit, services: Services, period: Period = Period.HOUR) -> Response:
    """Return what of the page changes, for a page that is open already."""
    return page("_live.html", visitor=visitor, **view(services, visitor, organization, period))


def view(services: ServicesOfApp, visitor: Visitor, organization: str, period: Period) -> dict[str, Any]:
    """Return everything that the page of an organization shows."""
    visitor.actor.require(Right.VIEW, organization)
    now = now_utc()
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        active = keystores.active_keystore(session, owner)
        latest = migration_views.list_page(session, owner, now, 1)
        monitored = active is not None and active.kind == Kind.SELF_ADMINISTERED
        monitor = monitors.find(session, active) if active and monitored else None
        running = latest[0] if latest and not has_ended(latest[0]["state"], latest[0]["phase"]) else None
        return {
            **frame(session, owner),
            "keystore": keystores.describe(owner, active) if active else None,
            "others": _others(session, services, owner, now),
            **_health(session, services, active if monitored else None, now, period, _LATEST_INCIDENTS),
            "monitor": monitors.describe(services.plane, owner, active, monitor) if active and monitor else None,
            "migration": latest[0] if latest else None,
            "running": running,
            "clean_ups": [] if running else clean_ups.list_page(session, owner, CLEAN_UPS),
            "certificate_days": _days(active.certificate_not_after, now) if active else None,
            "every_s": _EVERY_WHILE_MIGRATING_S if running else _every_s(services),
            "now": now,
            "path": f"{HOME}/organizations/{owner.name}",
        }


def _health(
    session: Session,
    services: ServicesOfApp,
    row: Keystore | None,
    now: datetime,
    period: Period,
    most: int,
    before: int | None = None,
) -> dict[str, Any]:
    """Return what is shown of the health of a keystore that is tested, and its latest incidents."""
    if row is None:
        return {"health": None, "incidents": [], "server_days": None, "older_incidents": None}
    health = monitoring_views.describe(session, services.plane, row, now, period)
    shown_until = health["server_certificate_not_after"]
    found = incidents.of_keystore(session, row, now, most + 1, before)
    return {
        "health": health,
        "incidents": found[:most],
        "older_incidents": found[most - 1]["id"] if len(found) > most else None,
        "server_days": _days(datetime.fromisoformat(shown_until) if shown_until else None, now),
    }


def _others(session: Session, services: ServicesOfApp, owner: Organization, now: datetime) -> list[dict[str, Any]]:
    """Return the keystores of an organization that are not in use, with their connections."""
    rows = [row for row in keystores.rows(session, owner) if row.id != owner.active_keystore_id]
    tested = [row for row in rows if row.kind == Kind.SELF_ADMINISTERED]
    shown = monitoring_views.connections(session, services.plane, tested, now)
    return [
        {
            **keystores.describe(owner, row),
            "connection": shown.get(row.id),
            "certificate_days": _days(row.certificate_not_after, now),
        }
        for row in rows
    ]


@router.get("/organizations/{organization}/keystores/{name}")
def keystore_page(
    organization: str,
    name: str,
    visitor: Visit,
    services: Services,
    saved: str = "",
    period: Period = Period.HOUR,
    before: Before = None,
) -> Response:
    """Show one keystore, in use or not: what it is bound to, its connection, and what can be done with it."""
    visitor.actor.require(Right.VIEW, organization)
    return one_keystore(services, visitor, organization, name, SAVED.get(saved), period=period, before=before)


@router.get("/organizations/{organization}/keystores/{name}/live")
def keystore_live(
    organization: str,
    name: str,
    visitor: Visit,
    services: Services,
    period: Period = Period.HOUR,
    before: Before = None,
) -> Response:
    """Return what of the page of a keystore changes, for a page that is open already."""
    visitor.actor.require(Right.VIEW, organization)
    shown = _of_keystore(services, organization, name, period, before)
    return page("_live_keystore.html", visitor=visitor, **shown)


def one_keystore(
    services: ServicesOfApp,
    visitor: Visitor,
    organization: str,
    name: str,
    saved: str | None = None,
    error: KeystoreError | None = None,
    period: Period = Period.HOUR,
    before: int | None = None,
) -> Response:
    """Return the page of a keystore, with what was saved, or why something was refused."""
    status = error.status if error else 200
    shown = _of_keystore(services, organization, name, period, before)
    return page("one_keystore.html", status, visitor=visitor, saved=saved, error=error, **shown)


def _of_keystore(
    services: ServicesOfApp, organization: str, name: str, period: Period, before: int | None
) -> dict[str, Any]:
    """Return everything that the page of a keystore shows."""
    now = now_utc()
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        row = keystores.find(session, owner, name)
        monitored = row.kind == Kind.SELF_ADMINISTERED
        monitor = monitors.find(session, row) if monitored else None
        return {
            **frame(session, owner),
            "keystore": keystores.describe(owner, row),
            **_health(session, services, row if monitored else None, now, period, _INCIDENTS, before),
            "monitor": monitors.describe(services.plane, owner, row, monitor) if monitor else None,
            "certificate_days": _days(row.certificate_not_after, now),
            "every_s": _every_s(services),
            "before": before,
            "path": f"{HOME}/organizations/{owner.name}/keystores/{quote(row.name, safe='')}",
        }


def frame(session: Session, owner: Organization) -> dict[str, Any]:
    """Return what every page of an organization shows: its name, and whether it is in maintenance."""
    return {
        "organization": registry.describe(session, owner),
        "online": owner.online,
        "changeable": owner.maintenance_by is None and owner.suspended is None and owner.environment == "cloud",
    }


def _every_s(services: ServicesOfApp) -> float:
    """Return how often a page asks for what changes: no less often than there is a health check."""
    return min(_EVERY_S, services.plane.settings.health_check_interval_s)


def _days(end: datetime | None, now: datetime) -> int | None:
    return (end - now).days if end else None


@router.get("/organizations/{organization}/history")
def history_page(organization: str, visitor: Visit, services: Services, before: Before = None) -> Response:
    """Show who did what when, the latest first, a page at a time."""
    visitor.actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        rows = history.entries(session, owner.id, _HISTORY + 1, before)[::-1]
        older = rows[_HISTORY - 1]["id"] if len(rows) > _HISTORY else None
        shown = {**frame(session, owner), "rows": rows[:_HISTORY], "older": older, "before": before}
    return page("history.html", visitor=visitor, **shown)


@router.get("/organizations/{organization}/history.{form}")
def export_history(organization: str, form: str, visitor: Visit, services: Services) -> Response:
    """Return the whole history as a file, CSV or JSON."""
    visitor.actor.require(Right.VIEW, organization)
    if form not in set(Format):
        raise NotFound("a history is exported as csv or json")
    return history_file(services, organization, Format(form))
