"""Migrations: plan, start, progress."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from pulumi_keystore.answers import MigrationAnswer, MigrationPlanAnswer, UnchangedAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.api.access import Actor, Body, Services
from pulumi_keystore.control_plane.api.pacing import Metered
from pulumi_keystore.control_plane.api.paging import AfterId, Limit
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.migration import lifecycle, planning, undo, views
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.migration import Mode

router = APIRouter(route_class=Metered, tags=["migrations"])


class PlanBody(Body):
    """Where keys would go."""

    destination: str = Field(description="name of the keystore to make active")


class MigrationBody(PlanBody):
    """Where the keys go, and who is notified."""

    notify_email: str | None = Field(
        description="address to notify about this migration, or none for no one; null is none for a new migration, and "
        "joins a running one whomever it notifies"
    )
    mode: str = Field(
        default=Mode.MAINTENANCE,
        description="maintenance: no key is enrolled meanwhile; online: keys are, and are held for a moment at the end",
    )


@router.post("/organizations/{organization}/migrations/plan")
def plan_migration(organization: str, body: PlanBody, actor: Actor, services: Services) -> MigrationPlanAnswer:
    """Say what a migration would do; nothing is changed."""
    actor.require(Right.VIEW, organization)
    return planning.plan(services.plane, organization, body.destination)


@router.post("/organizations/{organization}/migrations")
def start_migration(
    organization: str, body: MigrationBody, actor: Actor, services: Services
) -> MigrationAnswer | UnchangedAnswer:
    """Begin a migration, or attach to the one that goes there; state "unchanged" if nothing has to move."""
    actor.require(Right.MANAGE, organization)
    migration_id, new = lifecycle.start(
        services.plane, actor, organization, body.destination, body.notify_email, services.clean_ups, body.mode
    )
    if migration_id is None:
        return {"id": None, "state": "unchanged", "organization": organization, "destination": body.destination}
    if new:
        services.begin(migration_id)
    return _describe(services.plane, organization, migration_id)


@router.get("/organizations/{organization}/migrations")
def list_migrations(
    organization: str, actor: Actor, services: Services, after: AfterId = "", limit: Limit = 100
) -> list[MigrationAnswer]:
    """List the migrations of an organization, the latest first, a page at a time."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        return views.list_page(session, registry.find(session, organization), now_utc(), limit, after)


@router.get("/organizations/{organization}/migrations/{migration_id}")
def get_migration(organization: str, migration_id: str, actor: Actor, services: Services) -> MigrationAnswer:
    """Return a migration with its progress."""
    actor.require(Right.VIEW, organization)
    return _describe(services.plane, organization, migration_id)


@router.post("/organizations/{organization}/migrations/{migration_id}/cancel")
def cancel_migration(organization: str, migration_id: str, actor: Actor, services: Services) -> MigrationAnswer:
    """End a migration where it is; every key stays at, or goes back to, the source."""
    actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        lifecycle.cancel(session, registry.find(session, organization), migration_id, actor.name)
    return _describe(services.plane, organization, migration_id)


@router.post("/organizations/{organization}/migrations/{migration_id}/undo")
def undo_migration(organization: str, migration_id: str, actor: Actor, services: Services) -> MigrationAnswer:
    """Make the source of a migration the active keystore again, as long as the keys are retained there."""
    actor.require(Right.MANAGE, organization)
    undo.undo(services.plane, actor.name, organization, migration_id)
    return _describe(services.plane, organization, migration_id)


def _describe(plane: ControlPlane, organization: str, migration_id: str) -> MigrationAnswer:
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        row = views.find(session, owner, migration_id)
        return views.describe(session, owner, row, now_utc())
