"""Vault tokens that may write: each is written down before it is used, so that it can be ended by somebody else.

A process that is paused and goes on later, long after it was replaced, still has its token and does not know better. So
whoever takes over its work ends that token at the Vault server first (`fence`), and from then on the server itself
refuses what the old one sends. It cannot get a new token either: that would have to be written down, and only who
still holds the work may do that. (Sources: Kleppmann, "How to do distributed locking", 2016, on fencing; Vault API,
`auth/token/revoke-self`.)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.keystores.tables import JournalledToken
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.control_plane.runtime.leadership import require_lead
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.session import Announce
from pulumi_keystore.vault.transport import Transport

_PURPOSE: Final = "vault-token"


def for_leader(plane: ControlPlane, keystore: Keystore, holder: str | None = None) -> Announce:
    """Return what a keystore announces its tokens to while the leading service works on it."""

    def announce(token: str, cluster_id: str, namespace: str) -> Callable[[], None]:
        with plane.transaction() as session:
            require_lead(session, plane)
            return record(plane, session, keystore, holder or plane.instance, token, cluster_id, namespace)

    return announce


def record(
    plane: ControlPlane,
    session: Session,
    keystore: Keystore,
    holder: str,
    token: str,
    cluster_id: str,
    namespace: str,
) -> Callable[[], None]:
    """Write a token down, sealed, before it is used: whoever takes over can end it.

    Returns what is called when it was ended: nobody has to end it any more.
    """
    sealed = plane.master_key.seal(_PURPOSE, str(keystore.id), token.encode())
    row = JournalledToken(
        organization_id=keystore.organization_id,
        keystore_id=keystore.id,
        cluster_id=cluster_id,
        namespace=namespace,
        holder=holder,
        token_sealed=sealed,
    )
    session.add(row)
    session.flush()
    return partial(_forget, plane, row.id)


def _forget(plane: ControlPlane, number: int) -> None:
    # If the database is away just now, the token is ended once more later on.
    with suppress(SQLAlchemyError), plane.transaction() as session:
        session.execute(delete(JournalledToken).where(JournalledToken.id == number))


def fence(
    plane: ControlPlane, transport: Transport, vault: VaultKeystore, organization_id: int, *, holder: str | None = None
) -> None:
    """End every token that was written down for an organization on a keystore's cluster, or those of one holder.

    They are found by the cluster, not by the keystore: another registration may have led to the same place before.
    Each is ended in the namespace that gave it, which need not be the keystore's of today.

    Raises:
        KeystoreFault: The server cannot be reached, or is another cluster: somebody may still write there.

    """
    with plane.transaction() as session:
        # Tokens of the version before clusters were written down belong to whichever it is now.
        there = JournalledToken.cluster_id.in_((vault.cluster_id, ""))
        query = select(JournalledToken).where(JournalledToken.organization_id == organization_id, there)
        if holder is not None:
            query = query.where(JournalledToken.holder == holder)
        found = session.scalars(query.order_by(JournalledToken.id)).all()
    tokens = [
        (plane.master_key.open(_PURPOSE, str(row.keystore_id), row.token_sealed).decode(), row.namespace)
        for row in found
    ]
    transport.run_one(vault.end_tokens(tokens))
    with plane.transaction() as session:
        session.execute(delete(JournalledToken).where(JournalledToken.id.in_([row.id for row in found])))
