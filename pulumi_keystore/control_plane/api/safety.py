"""What keeps keys safe when something has gone wrong: verification, recovery, clean-ups."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from pulumi_keystore.answers import CleanUpAnswer, RecoveryAnswer, ReportAnswer
from pulumi_keystore.control_plane.api.access import Actor, Body, Services
from pulumi_keystore.control_plane.api.pacing import Metered
from pulumi_keystore.control_plane.api.paging import MOST, AfterNumber, Limit
from pulumi_keystore.control_plane.identity.roles import Right
from pulumi_keystore.control_plane.keystores import clean_ups, recovery, verification
from pulumi_keystore.control_plane.organizations import registry

router = APIRouter(route_class=Metered, tags=["safety"])
Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="number of the clean-up")]


class RecoveryBody(Body):
    """Which plan is meant."""

    code: str = Field(description="code of the plan, from GET")
    without: list[str] = Field(default=[], max_length=100, description="keystores to leave out: gone for good")


class ReasonBody(Body):
    """Why something is done that cannot be undone."""

    reason: str = Field(description="one line for the history")


@router.post("/organizations/{organization}/verify")
def verify(organization: str, actor: Actor, services: Services) -> ReportAnswer:
    """Read every archive key at the active keystore and compare it; name those missing, damaged or surplus."""
    actor.require(Right.MANAGE, organization)
    return verification.verify(services.plane, organization).to_document()


@router.get("/organizations/{organization}/recovery")
def plan_recovery(
    organization: str,
    actor: Actor,
    services: Services,
    without: Annotated[list[str], Query(max_length=100, description="keystores to leave out: gone for good")] = [],  # noqa: B006 - FastAPI copies it
) -> RecoveryAnswer:
    """Say what a recovery would take over from the keystores; nothing is changed."""
    actor.require(Right.MANAGE, organization)
    return recovery.plan(services.plane, organization, without).to_document()


@router.post("/organizations/{organization}/recovery")
def recover(organization: str, body: RecoveryBody, actor: Actor, services: Services) -> RecoveryAnswer:
    """Recover an organization as the plan of that code says; refused where it is not so any more."""
    actor.require(Right.MANAGE, organization)
    return recovery.apply(services.plane, actor.name, organization, body.code, body.without).to_document()


@router.get("/organizations/{organization}/clean-ups")
def list_clean_ups(
    organization: str,
    actor: Actor,
    services: Services,
    *,
    ended: bool = False,
    after: AfterNumber = 0,
    limit: Limit = MOST,
) -> list[CleanUpAnswer]:
    """List the clean-ups that are pending, with `ended` all of them; the oldest first, a page at a time."""
    actor.require(Right.VIEW, organization)
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        return clean_ups.list_page(session, owner, limit, after, ended=ended)


@router.post("/organizations/{organization}/clean-ups/{number}/retry")
def retry_clean_up(organization: str, number: Number, actor: Actor, services: Services) -> CleanUpAnswer:
    """Try a clean-up now."""
    actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        clean_ups.find(session, registry.find(session, organization), number)
    services.clean_ups.retry(number)
    return _show(services, organization, number)


@router.post("/organizations/{organization}/clean-ups/{number}/abandon")
def abandon_clean_up(
    organization: str, number: Number, body: ReasonBody, actor: Actor, services: Services
) -> CleanUpAnswer:
    """Give a clean-up up: what lies there stays there."""
    actor.require(Right.MANAGE, organization)
    with services.plane.transaction() as session:
        clean_ups.abandon(session, actor.name, registry.find(session, organization), number, body.reason)
    return _show(services, organization, number)


def _show(services: Services, organization: str, number: int) -> CleanUpAnswer:
    with services.plane.transaction() as session:
        owner = registry.find(session, organization)
        return clean_ups.describe(session, owner, clean_ups.find(session, owner, number))
