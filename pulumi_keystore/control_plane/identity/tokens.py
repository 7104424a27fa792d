"""API tokens and what their roles may do (contract: Who may)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from pulumi_keystore.answers import TokenAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.identity.roles import Principal, Role
from pulumi_keystore.control_plane.identity.tables import Token
from pulumi_keystore.control_plane.organizations import history
from pulumi_keystore.control_plane.organizations.registry import no_organization
from pulumi_keystore.control_plane.organizations.tables import Organization
from pulumi_keystore.control_plane.runtime.tables import iso
from pulumi_keystore.errors import InvalidInput, NotAuthenticated, NotFound

PREFIX: Final = "ks_"


def create(
    session: Session, actor: str, name: str, role: str, organization: str | None = None, days: int | None = None
) -> tuple[TokenAnswer, str]:
    """Make a token; return its description and its text, which is shown this once and kept nowhere.

    Raises:
        InvalidInput: No such role, an unusable name, or a lifetime below one day.
        NotFound: No such organization.

    """
    if role not in set(Role):
        raise InvalidInput(f"role: unknown role {role!r}", hint=f"expected one of {', '.join(Role)}", prop="role")
    if not 1 <= len(name) <= 100 or not name.isprintable():  # noqa: PLR2004
        raise InvalidInput("name: not 1 to 100 printable characters", hint="give the token another name", prop="name")
    if unicodedata.normalize("NFKC", name).strip().casefold() == history.SYSTEM:
        raise InvalidInput(
            f"name: {history.SYSTEM!r} is what the history calls the service itself",
            hint="give the token another name",
            prop="name",
        )
    if days is not None and not 1 <= days <= 3650:  # noqa: PLR2004
        raise InvalidInput(f"days: {days} is out of range", hint="expected 1 to 3650", prop="days")
    owner = None
    if organization is not None:
        owner = session.scalar(select(Organization).where(Organization.name == organization))
        if owner is None:
            raise no_organization(organization)
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    row = Token(
        id=token_id,
        digest=_digest(secret),
        name=name,
        role=role,
        organization_id=owner.id if owner else None,
        created_at=now_utc(),
        expires_at=now_utc() + timedelta(days=days) if days else None,
    )
    session.add(row)
    session.flush()
    detail = f"{name}: {role}, {organization or 'all organizations'}, id {token_id}"
    history.append(session, history.SERVICE, actor, "Token created", detail)
    return describe(row, organization), f"{PREFIX}{token_id}_{secret}"


def describe(row: Token, organization: str | None) -> TokenAnswer:
    """Return what may be shown of a token."""
    return {
        "id": row.id,
        "name": row.name,
        "role": row.role,
        "organization": organization,
        "created_at": row.created_at.isoformat(),
        "expires_at": iso(row.expires_at),
        "revoked_at": iso(row.revoked_at),
    }


def list_page(session: Session, limit: int, after: str = "") -> list[TokenAnswer]:
    """Return tokens without their secrets, the oldest first; those after the one of an id.

    Raises:
        NotFound: There is no token of that id.

    """
    order = (Token.created_at, Token.id)
    query = select(Token, Organization.name).outerjoin(Organization, Organization.id == Token.organization_id)
    if after:
        last = _find(session, after)
        query = query.where(tuple_(*order) > tuple_(last.created_at, last.id))
    rows = session.execute(query.order_by(*order).limit(limit))
    return [describe(token, organization) for token, organization in rows]


def revoke(session: Session, actor: str, token_id: str) -> None:
    """End a token at once; ending it again is fine.

    Raises:
        NotFound: There is no such token.

    """
    row = _find(session, token_id)
    if row.revoked_at is None:
        row.revoked_at = now_utc()
        history.append(session, history.SERVICE, actor, "Token revoked", f"{row.name}: {row.role}, id {token_id}")


def _find(session: Session, token_id: str) -> Token:
    row = session.get(Token, token_id) if token_id.isalnum() else None
    if row is None:
        raise NotFound(f"there is no token {token_id[:40]!r}", hint="list them with `keystore token list`")
    return row


def authenticate(session: Session, text: str | None, now: datetime) -> Principal:
    """Return who a token stands for.

    Raises:
        NotAuthenticated: It is missing, unknown, expired or revoked; which of these is not told.

    """
    return identify(session, text, now)[0]


def identify(session: Session, text: str | None, now: datetime) -> tuple[Principal, str]:
    """Return who a token stands for, and its id; see `authenticate`."""
    token_id, _, secret = (text or "").removeprefix(PREFIX).partition("_")
    row = session.get(Token, token_id) if secret and token_id.isalnum() else None
    # A digest is compared even where there is no row, so that time tells nothing.
    if not hmac.compare_digest(row.digest if row else bytes(32), _digest(secret)):
        row = None
    return _principal(session, row, now), token_id


def by_id(session: Session, token_id: str, now: datetime) -> Principal:
    """Return who a token stands for that was shown before; see `authenticate`."""
    return _principal(session, session.get(Token, token_id), now)


def _principal(session: Session, row: Token | None, now: datetime) -> Principal:
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        raise NotAuthenticated(
            "the API token is missing or not valid",
            hint="set KEYSTORE_TOKEN, or `pulumi config set --secret keystore:token`, to a token of "
            "`keystore token create`",
        )
    organization = session.get(Organization, row.organization_id) if row.organization_id else None
    return Principal(row.name, Role(row.role), organization.name if organization else None)


def _digest(secret: str) -> bytes:
    # The secret has 256 bits of entropy: a plain digest is as good as a slow one.
    return hashlib.sha256(secret.encode()).digest()
