"""The ledger of archive keys, page by page, and the keystore in use as a witness of what it holds."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.organizations.tables import (
    ArchiveKeyEntry,
    DestroyedKey,
    Keystore,
    LateKey,
    Organization,
)
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import one_of
from pulumi_keystore.vault.record import ArchiveKey, Entry

PAGE: Final = 1000


def entries(
    plane: ControlPlane,
    organization_id: int,
    after: str | None = None,
    upto: str | None = None,
    *,
    without_late_of: str | None = None,
) -> Iterator[Entry]:
    """Yield enrolled keys in the order of user ids, a page at a time.

    Args:
        plane: Where they are written down.
        organization_id: Whose they are.
        after: Begin after this user id.
        upto: End with this user id.
        without_late_of: Leave out those that were enrolled during this migration.

    """
    query = _of(organization_id)
    if upto is not None:
        query = query.where(ArchiveKeyEntry.user <= upto)
    if without_late_of is not None:
        late = select(LateKey.user).where(LateKey.migration_id == without_late_of, LateKey.user == ArchiveKeyEntry.user)
        query = query.where(~late.exists())
    query = query.order_by(ArchiveKeyEntry.user).limit(PAGE)
    while True:
        with plane.transaction() as session:
            page = session.execute(query if after is None else query.where(ArchiveKeyEntry.user > after)).all()
        for row in page:
            yield _entry(row)
        if len(page) < PAGE:
            return
        after = page[-1][0]


def highest(session: Session, organization_id: int) -> int:
    """Return the number of the entry that was enrolled last; with the gate closed, none that is lower can appear."""
    return session.scalar(select(func.max(ArchiveKeyEntry.number)).where(_mine(organization_id))) or 0


def since(session: Session, organization_id: int, number: int) -> list[Entry]:
    """Return what was enrolled after the entry of a number."""
    query = _of(organization_id).where(ArchiveKeyEntry.number > number)
    return [_entry(row) for row in session.execute(query)]


def of_users(session: Session, organization_id: int, users: Collection[str]) -> dict[str, Entry]:
    """Return the entries of some users."""
    query = _of(organization_id).where(ArchiveKeyEntry.user.in_(list(users)))
    return {entry.user: entry for entry in map(_entry, session.execute(query))}


def count_given_up(session: Session, organization_id: int) -> int:
    """Return how many keys have been given up: they may be missing."""
    query = select(func.count()).where(_mine(organization_id), ArchiveKeyEntry.given_up_at.is_not(None))
    return session.scalar(query) or 0


def _mine(organization_id: int) -> ColumnElement[bool]:
    return ArchiveKeyEntry.organization_id == organization_id


def _of(organization_id: int) -> Select[str, int, bytes, datetime | None]:
    columns = (
        ArchiveKeyEntry.user, ArchiveKeyEntry.generation, ArchiveKeyEntry.fingerprint, ArchiveKeyEntry.given_up_at,
    )  # fmt: skip
    return select(*columns).where(_mine(organization_id))


def _entry(row: Row[str, int, bytes, datetime | None]) -> Entry:
    user, generation, fingerprint, given_up_at = row[0], row[1], row[2], row[3]
    return Entry(user, generation, fingerprint, given_up=given_up_at is not None)


def is_enrolled(plane: ControlPlane, owner: Organization, entry: Entry, record: ArchiveKey | None) -> bool:
    """Tell whether a record is the key that was enrolled, in constant time."""
    if record is None or (record.user, record.generation) != (entry.user, entry.generation):
        return False
    return hmac.compare_digest(plane.master_key.fingerprint(owner.name, entry.user, record.key), entry.fingerprint)


def was_destroyed(plane: ControlPlane, owner: Organization, record: ArchiveKey) -> bool:
    """Tell whether a person has destroyed this very key on purpose, as of now."""
    digest = plane.master_key.fingerprint(owner.name, record.user, record.key)
    with plane.transaction() as session:
        return session.get(DestroyedKey, (owner.id, record.user, digest)) is not None


# The keystore in use.


def count_keys(session: Session, organization: Organization) -> int:
    """Return how many users have their archive key in escrow."""
    query = select(func.count()).where(ArchiveKeyEntry.organization_id == organization.id)
    return session.scalar(query) or 0


def count_keys_of_all(session: Session, organizations: Sequence[Organization]) -> dict[int, int]:
    """Return the same of many by their numbers; those without any are missing."""
    mine = one_of(ArchiveKeyEntry.organization_id, [row.id for row in organizations])
    query = select(ArchiveKeyEntry.organization_id, func.count()).where(mine)
    return dict(session.execute(query.group_by(ArchiveKeyEntry.organization_id)).all())


def mirror(session: Session, owner: Organization) -> Keystore | None:
    """Return the keystore that keys go to, too, during an online migration; None where that is not needed."""
    return session.get(Keystore, owner.mirror_id) if owner.mirror_id is not None else None


def note_late(session: Session, owner: Organization, users: Sequence[str]) -> None:
    """Write down who is enrolled after the keys were divided into shards, if anybody has to be."""
    if owner.mirror_id is not None:
        session.add_all(LateKey(migration_id=owner.maintenance_by, user=user, verified=False) for user in users)
