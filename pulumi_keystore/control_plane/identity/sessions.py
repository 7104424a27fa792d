"""Browsers that are signed in to the console: a cookie stands for an API token, for some hours."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.identity.roles import Principal
from pulumi_keystore.control_plane.identity.tables import ConsoleSession
from pulumi_keystore.errors import NotAuthenticated

LIFETIME: Final = timedelta(hours=8)
_MOST: Final = 50
"""Sessions that one token has at a time: the oldest ends where there is one more."""


def begin(session: Session, token: str, now: datetime) -> tuple[Principal, str]:
    """Sign in with an API token; return who that is and the cookie's text, of which only a digest is kept.

    Raises:
        NotAuthenticated: The token is not valid.

    """
    actor, token_id = tokens.identify(session, token.strip(), now)
    cookie = secrets.token_urlsafe(32)
    mine = select(ConsoleSession.id).where(ConsoleSession.token_id == token_id)
    older = mine.order_by(ConsoleSession.created_at.desc()).offset(_MOST - 1)
    session.execute(delete(ConsoleSession).where(ConsoleSession.id.in_(older)))
    session.add(ConsoleSession(id=_digest(cookie), token_id=token_id, created_at=now, expires_at=now + LIFETIME))
    return actor, cookie


def resume(session: Session, cookie: str | None, now: datetime) -> Principal:
    """Return who is signed in.

    Raises:
        NotAuthenticated: Nobody: the cookie is missing, unknown or old, or its token has ended.

    """
    row = session.get(ConsoleSession, _digest(cookie)) if cookie else None
    if row is None or not row.created_at <= now + LIFETIME or row.expires_at <= now:
        raise NotAuthenticated("you are not signed in", hint="sign in")
    return tokens.by_id(session, row.token_id, now)


def end(session: Session, cookie: str | None) -> None:
    """Sign out."""
    if cookie:
        session.execute(delete(ConsoleSession).where(ConsoleSession.id == _digest(cookie)))


def forget_expired(session: Session, now: datetime) -> None:
    """Remove sessions that have ended."""
    session.execute(delete(ConsoleSession).where(ConsoleSession.expires_at <= now))


def form_token(cookie: str) -> str:
    """Return what each form of this session carries, so that no other site can send one (CSRF)."""
    return hmac.new(cookie.encode(), b"console form", hashlib.sha256).hexdigest()


def is_form_token(cookie: str, text: str) -> bool:
    """Tell whether a form is one of this session's."""
    return hmac.compare_digest(form_token(cookie).encode(), text.encode())


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
