"""Organizations, their status and their history."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from pulumi_keystore.answers import (
    HistoryAnswer,
    ListedOrganizationAnswer,
    OrganizationAnswer,
    StatusAnswer,
)
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane import overview
from pulumi_keystore.control_plane.api.access import Actor, Body, Mark, Services, ServicesOfApp
from pulumi_keystore.control_plane.api.pacing import Metered, metered
from pulumi_keystore.control_plane.api.paging import MOST, AfterName, Before, Limit
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.keystores import verification
from pulumi_keystore.control_plane.migration import parties
from pulumi_keystore.control_plane.migration import views as migration_views
from pulumi_keystore.control_plane.monitoring import views as monitoring_views
from pulumi_keystore.control_plane.organizations import history, keystores, registry
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.declarations.problems import Order, Problem, ProblemFilter

router = APIRouter(route_class=Metered, tags=["organizations"])


class Format(StrEnum):
    """How a history is exported."""

    CSV = "csv"
    JSON = "json"


class OrganizationBody(Body):
    """An organization to be."""

    environment: str = Field(default="cloud", description="cloud or federal")


@router.get("/organizations")
def list_organizations(
    actor: Actor,
    services: Services,
    after: AfterName = "",
    limit: Limit = 100,
    search: Annotated[str, Query(max_length=63, description="only those whose name holds this")] = "",
    problem: Annotated[ProblemFilter | None, Query(description="only those with this problem")] = None,
    sort: Annotated[Order, Query(description="how they are sorted")] = Order.NAME,
) -> list[ListedOrganizationAnswer]:
    """List the organizations that the token may see, a page at a time."""
    actor.require(Right.VIEW, actor.organization)
    plane, now = services.plane, now_utc()
    with plane.transaction() as session:
        if actor.organization is not None:
            rows = [registry.find(session, actor.organization)]
        else:
            rows = overview.list_page(
                session, plane, now, after=after, limit=limit, search=search, problem=problem, order=sort
            )
        return overview.describe(session, plane, rows, now)


@router.get("/problems")
def count_problems(actor: Actor, services: Services) -> dict[Problem, int]:
    """Return how many organizations have each problem."""
    actor.require(Right.VIEW)
    with services.plane.transaction() as session:
        return overview.count_problems(session, services.plane, now_utc())


@router.get("/organizations/{organization}")
def get_organization(organization: str, actor: Actor, services: Services) -> OrganizationAnswer:
    """Return one organization."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        return registry.describe(session, registry.find(session, organization))


@router.put("/organizations/{organization}")
def put_organization(
    organization: str, body: OrganizationBody, actor: Actor, services: Services, mark: Mark = None
) -> OrganizationAnswer:
    """Create an organization, which takes the right to administer the service, or return the one there is."""
    actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        if registry.named(session, organization) is None:
            actor.require(Right.ADMINISTER, organization)
        row, warnings = registry.put(session, actor.name, organization, body.environment, mark)
        return {**registry.describe(session, row), "warnings": warnings}


@router.delete("/organizations/{organization}", status_code=204)
def delete_organization(organization: str, actor: Actor, services: Services, mark: Mark = None) -> None:
    """Delete an organization that has no keystores and no keys."""
    actor.require(Right.ADMINISTER, organization)
    with services.plane.transaction() as session:
        registry.remove(session, actor.name, organization, mark)


@router.get("/organizations/{organization}/status")
def status(organization: str, actor: Actor, services: Services) -> StatusAnswer:
    """Return the active keystore, its connection (tested now, and each minute), and the running migration."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        active = keystores.active_keystore(session, owner)
        shown: StatusAnswer = {
            **registry.describe(session, owner),
            "keystore": keystores.describe(owner, active) if active else None,
            "connection": None,
            "verification": verification.describe(session, owner),
            "health": None,
            "migration": None,
        }
        if active and active.kind == Kind.SELF_ADMINISTERED:
            shown["health"] = monitoring_views.describe(session, services.plane, active, now_utc())
        if owner.maintenance_by:
            row = parties.load(session, owner.maintenance_by).migration
            shown["migration"] = migration_views.describe(session, owner, row, now_utc())
    if active:
        shown["connection"] = services.health_checks.look(owner, active)
    return shown


@router.get("/organizations/{organization}/history")
def get_history(
    organization: str, actor: Actor, services: Services, limit: Limit = MOST, before: Before = None
) -> list[HistoryAnswer]:
    """Return the latest entries of the history, or the latest before one; oldest first."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        return history.entries(session, owner.id, limit, before)


@router.get("/organizations/{organization}/history/export")
def export_history(organization: str, actor: Actor, services: Services, format: Format = Format.CSV) -> Response:  # noqa: A002 - its name in the API
    """Return the whole history as a file."""
    actor.require(Right.VIEW, organization)
    return history_file(services, organization, format)


@router.get("/history")
def get_service_history(
    actor: Actor, services: Services, limit: Limit = MOST, before: Before = None
) -> list[HistoryAnswer]:
    """Return the history of the service: organizations that came and went, and tokens; pages as above."""
    actor.require(Right.ADMINISTER)
    with services.plane.transaction() as session:
        return history.entries(session, history.SERVICE, limit, before)


def history_file(services: ServicesOfApp, organization: str, form: Format) -> Response:
    """Return the answer that holds the whole history as a file; it is read a page at a time while it is sent."""
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
    pages = history.pages(services.plane, owner.id)
    text = history.to_csv(pages) if form is Format.CSV else history.to_json(pages)
    name = f"{organization}-history.{form}"
    kind = "text/csv; charset=utf-8" if form is Format.CSV else "application/json"
    return StreamingResponse(
        metered(text), media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )
