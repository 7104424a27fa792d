"""Escrow and release of archive keys."""

from __future__ import annotations

from base64 import b64encode

from fastapi import APIRouter
from pydantic import Field, SecretStr

from pulumi_keystore.answers import EnrolledAnswer, GivenUpAnswer, ReleasedAnswer
from pulumi_keystore.control_plane.api.access import MAX_BATCH, Actor, Body, Services
from pulumi_keystore.control_plane.api.pacing import Metered
from pulumi_keystore.control_plane.escrow import deposit, endings
from pulumi_keystore.control_plane.escrow.release import release as release_to_user
from pulumi_keystore.control_plane.identity.roles import Right

router = APIRouter(route_class=Metered, tags=["archive keys"])


class EscrowBody(Body):
    """Archive keys to put into escrow."""

    keys: dict[str, SecretStr] = Field(description="base64 of 32 bytes, by user id", max_length=MAX_BATCH)


class ReleaseBody(Body):
    """Whose archive key, and to whom it is encrypted."""

    user: str
    public_key: str = Field(description="X25519 public key, base64 of 32 bytes")


class DestroyBody(Body):
    """Whose archive key is destroyed, and why."""

    user: str
    reason: str = Field(description="one line for the history")


class GiveUpBody(Body):
    """Whose archive keys are lost, and why."""

    users: list[str] = Field(min_length=1, max_length=MAX_BATCH)
    reason: str = Field(description="one line for the history")


@router.post("/organizations/{organization}/archive-keys")
def escrow(organization: str, body: EscrowBody, actor: Actor, services: Services) -> EnrolledAnswer:
    """Put users' archive keys into escrow, all or nothing."""
    actor.require(Right.ESCROW, organization)
    keys = {user: deposit.decode_key(key.get_secret_value()) for user, key in body.keys.items()}
    done = deposit.escrow(
        services.plane, services.connections, services.checkpoints, services.quota, organization, keys
    )
    return {"enrolled": done.new, "restored": done.restored, "given": len(keys)}


@router.post("/organizations/{organization}/archive-keys/release")
def release(organization: str, body: ReleaseBody, actor: Actor, services: Services) -> ReleasedAnswer:
    """Return a user's archive key, encrypted to the caller's public key (HPKE, RFC 9180)."""
    actor.require(Right.ESCROW, organization)
    sealed = release_to_user(services.plane, services.connections, organization, body.user, body.public_key)
    return {"user": body.user, "sealed_key": b64encode(sealed).decode()}


@router.post("/organizations/{organization}/archive-keys/destroy", status_code=204)
def destroy(organization: str, body: DestroyBody, actor: Actor, services: Services) -> None:
    """Take a user's archive key out of escrow for good: every backup made with it alone is lost."""
    actor.require(Right.MANAGE, organization)
    endings.destroy(services.plane, services.checkpoints, actor.name, organization, body.user, body.reason)


@router.post("/organizations/{organization}/archive-keys/give-up")
def give_up(organization: str, body: GiveUpBody, actor: Actor, services: Services) -> GivenUpAnswer:
    """Note that archive keys may be missing: edits and migrations are not refused because of them any more."""
    actor.require(Right.MANAGE, organization)
    return {"given_up": endings.give_up(services.plane, actor.name, organization, body.users, body.reason)}
