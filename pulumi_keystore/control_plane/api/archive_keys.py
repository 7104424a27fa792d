"""Escrow and release of archive keys."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from fastapi import APIRouter
from pydantic import Field, SecretStr

from pulumi_keystore.control_plane import archive_keys
from pulumi_keystore.control_plane.api.access import Body, Services, Who
from pulumi_keystore.control_plane.tokens import Right

MAX_BATCH = 2000

router = APIRouter(tags=["archive keys"])


class EscrowBody(Body):
    """Archive keys to put into escrow."""

    keys: dict[str, SecretStr] = Field(description="base64 of 32 bytes, by user id", max_length=MAX_BATCH)


class ReleaseBody(Body):
    """Whose archive key, and to whom it is encrypted."""

    user: str
    public_key: str = Field(description="X25519 public key, base64 of 32 bytes")


@router.post("/organizations/{organization}/archive-keys")
def escrow(organization: str, body: EscrowBody, who: Who, services: Services) -> dict[str, Any]:
    """Put users' archive keys into escrow, all or nothing."""
    who.require(Right.ESCROW, organization)
    keys = {user: archive_keys.decode_key(key.get_secret_value()) for user, key in body.keys.items()}
    enrolled = archive_keys.escrow(services.plane, services.connections, organization, keys)
    return {"enrolled": enrolled, "given": len(keys)}


@router.post("/organizations/{organization}/archive-keys/release")
def release(organization: str, body: ReleaseBody, who: Who, services: Services) -> dict[str, Any]:
    """Return a user's archive key, encrypted to the caller's public key (HPKE, RFC 9180)."""
    who.require(Right.ESCROW, organization)
    sealed = archive_keys.release(services.plane, services.connections, organization, body.user, body.public_key)
    return {"user": body.user, "sealed_key": b64encode(sealed).decode()}
