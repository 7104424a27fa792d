"""Vault tokens that may write: each is written down before it is used, so that it can be ended by somebody else.

A process that is paused and goes on later, long after it was replaced, still has its token and does not know better. So
whoever takes over its work ends that token at the Vault server first (`fence`), and from then on the server itself
refuses what the old one sends. It cannot get a new token either: that would have to be written down, and only who
still holds the work may do that. (Sources: Kleppmann, "How to do distributed locking", 2016, on fencing; Vault API,
`auth/token/revoke-self`.)
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pulumi_keystore import failpoints
from pulumi_keystore.control_plane.models import Fact, Grant, Share
from pulumi_keystore.control_plane.plane import ControlPlane
from pulumi_keystore.keystores.transport import Transport
from pulumi_keystore.keystores.vault import VaultKeystore

_PURPOSE: Final = "vault-token"
_LEADER: Final = "leader"


class Superseded(Exception):  # noqa: N818 - it says what has happened to us
    """The work is somebody else's now: stop, and change nothing more."""


def lead(plane: ControlPlane) -> str | None:
    """Write down that this process is the service that leads; return which one did before.

    The earlier one can get no more tokens.
    """
    with plane.transaction() as session:
        before = session.get(Fact, _LEADER, with_for_update=True)
        previous = before.value.decode() if before else None
        session.merge(Fact(name=_LEADER, value=plane.instance.encode()))
    return previous


def require_lead(session: Session, plane: ControlPlane) -> None:
    """Make sure that this process leads, and goes on to do so until the transaction ends.

    Raises:
        Superseded: Another service does.

    """
    leader = session.scalar(select(Fact.value).where(Fact.name == _LEADER).with_for_update(read=True))
    if leader != plane.instance.encode():
        raise Superseded("another service leads")


def for_leader(plane: ControlPlane, keystore_id: int) -> Callable[[str], None]:
    """Return what a keystore announces its tokens to while the leading service works on it."""

    def announce(token: str) -> None:
        with plane.transaction() as session:
            require_lead(session, plane)
            _record(plane, session, keystore_id, plane.instance, token)

    return announce


def for_holder(plane: ControlPlane, keystore_id: int, holder: str) -> Callable[[str], None]:
    """Return what a keystore announces its tokens to while a worker's session works on a share."""

    def announce(token: str) -> None:
        with plane.transaction() as session:
            held = select(Share.id).where(Share.holder == holder, Share.state == "held").limit(1)
            if session.scalar(held.with_for_update(read=True)) is None:
                raise Superseded("the share was given to somebody else")
            _record(plane, session, keystore_id, holder, token)
        failpoints.reach("share.granted")

    return announce


def _record(plane: ControlPlane, session: Session, keystore_id: int, holder: str, token: str) -> None:
    sealed = plane.master_key.seal(_PURPOSE, str(keystore_id), token.encode())
    session.add(Grant(keystore_id=keystore_id, holder=holder, token_sealed=sealed))


def fence(
    plane: ControlPlane, transport: Transport, vault: VaultKeystore, keystore_id: int, *, holder: str | None = None
) -> None:
    """End every token that was written down for a keystore, or those of one holder.

    Raises:
        KeystoreFault: The server cannot be reached: somebody may still write there.

    """
    with plane.transaction() as session:
        query = select(Grant.id, Grant.token_sealed).where(Grant.keystore_id == keystore_id)
        if holder is not None:
            query = query.where(Grant.holder == holder)
        found = session.execute(query.order_by(Grant.id)).all()
    for number, sealed in found:
        transport.run_one(vault.surrender(plane.master_key.open(_PURPOSE, str(keystore_id), sealed).decode()))
        with plane.transaction() as session:
            session.execute(delete(Grant).where(Grant.id == number))


def new_name(what: str) -> str:
    """Return a name that no other process or session has or had."""
    return f"{what}-{secrets.token_hex(8)}"
