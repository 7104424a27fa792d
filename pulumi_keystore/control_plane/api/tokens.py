"""API tokens."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from pulumi_keystore.answers import NewTokenAnswer, TokenAnswer
from pulumi_keystore.control_plane.api.access import Actor, Body, Services
from pulumi_keystore.control_plane.api.pacing import Metered
from pulumi_keystore.control_plane.api.paging import MOST, AfterId, Limit
from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.identity.roles import Right

router = APIRouter(route_class=Metered, tags=["tokens"])


class TokenBody(Body):
    """A token to be."""

    name: str
    role: str = Field(description="provider-admin, customer-cloud-admin, authority or viewer")
    organization: str | None = Field(default=None, description="the one organization it is for; all if missing")
    days: int | None = Field(default=None, description="lifetime in days; without end if missing")


@router.get("/tokens")
def list_tokens(actor: Actor, services: Services, after: AfterId = "", limit: Limit = MOST) -> list[TokenAnswer]:
    """List all tokens, the oldest first, without their secrets, a page at a time."""
    actor.require(Right.ADMINISTER)
    with services.plane.transaction() as session:
        return tokens.list_page(session, limit, after)


@router.post("/tokens")
def create_token(body: TokenBody, actor: Actor, services: Services) -> NewTokenAnswer:
    """Make a token; its text is in this answer and nowhere else."""
    actor.require(Right.ADMINISTER)
    with services.plane.transaction() as session:
        shown, text = tokens.create(session, actor.name, body.name, body.role, body.organization, body.days)
    return {**shown, "token": text}


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(token_id: str, actor: Actor, services: Services) -> None:
    """End a token at once."""
    actor.require(Right.ADMINISTER)
    with services.plane.transaction() as session:
        tokens.revoke(session, actor.name, token_id)
