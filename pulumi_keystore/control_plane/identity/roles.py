"""Roles, what each may do, and who asks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pulumi_keystore.control_plane.organizations.registry import no_organization
from pulumi_keystore.errors import NotAllowed


class Role(StrEnum):
    """Roles of API tokens."""

    PROVIDER_ADMIN = "provider-admin"
    """Runs the service: organizations and tokens, and everything below."""
    CUSTOMER_CLOUD_ADMIN = "customer-cloud-admin"
    """Manages keystores and migrations."""
    AUTHORITY = "authority"
    """The authority service: puts archive keys into escrow and releases them."""
    VIEWER = "viewer"
    """Reads status and history."""


class Right(StrEnum):
    """What can be allowed."""

    ADMINISTER = "administer the service"
    MANAGE = "change keystores"
    ESCROW = "escrow and release archive keys"
    VIEW = "read"


RIGHTS: Final[dict[Role, frozenset[Right]]] = {
    Role.PROVIDER_ADMIN: frozenset({Right.ADMINISTER, Right.MANAGE, Right.VIEW}),
    Role.CUSTOMER_CLOUD_ADMIN: frozenset({Right.MANAGE, Right.VIEW}),
    Role.AUTHORITY: frozenset({Right.ESCROW, Right.VIEW}),
    Role.VIEWER: frozenset({Right.VIEW}),
}
_WANTED: Final = {
    Right.ADMINISTER: Role.PROVIDER_ADMIN,
    Right.MANAGE: Role.CUSTOMER_CLOUD_ADMIN,
    Right.ESCROW: Role.AUTHORITY,
    Right.VIEW: Role.VIEWER,
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request: a token's name, its role, and its organization (None for all)."""

    name: str
    role: Role
    organization: str | None = None

    def require(self, right: Right, organization: str | None = None) -> None:
        """Raise unless the role has the right, and over this organization.

        Raises:
            NotAllowed: The role lacks the right.
            NotFound: The organization is somebody else's; whether it exists is not told.

        """
        if right not in RIGHTS[self.role]:
            raise NotAllowed(
                f"the role {self.role} may not {right}", hint=f"use a token with the role {_WANTED[right]}"
            )
        if self.organization is not None and organization != self.organization:
            if organization is None:
                raise NotAllowed(f"this token is for the organization {self.organization!r} alone")
            raise no_organization(organization)
