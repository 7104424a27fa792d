"""The legacy keystore: sealed rows in the control plane's database. A source of migrations, never a destination."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.organizations.tables import LegacyKey, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault.record import KEY_BYTES, ArchiveKey, DamagedRecordError

LEGACY_PURPOSE: Final = "legacy-key"

Unseal = Callable[[str, bytes], bytes]


def read_rows(
    organization: str, user: str, generation: int, rows: Iterable[bytes | None], unseal: Unseal
) -> ArchiveKey | None:
    """Return the one archive key that a user's rows hold, or None where there is no row.

    Args:
        organization: Whose rows they are.
        user: The user id.
        generation: The generation of the key that is enrolled.
        rows: The sealed value of every row of this user.
        unseal: Opens one sealed value of a user.

    Raises:
        DamagedRecordError: A row is empty, there are several, one does not open, or the key is not 32 bytes.

    """
    found = list(rows)
    if not found:
        return None
    if len(found) > 1:
        raise DamagedRecordError("there are several legacy rows")
    if found[0] is None:
        raise DamagedRecordError("the legacy row is empty")
    try:
        key = unseal(user, found[0])
    except KeystoreError:
        raise DamagedRecordError("the legacy row does not open") from None
    if len(key) != KEY_BYTES:
        raise DamagedRecordError(f"the legacy key has {len(key)} bytes")
    return ArchiveKey(organization, user, generation, key)


def of_user(
    plane: ControlPlane, session: Session, owner: Organization, user: str, generation: int
) -> ArchiveKey | None:
    """Return a user's archive key out of the database, None where there is no row of it.

    Raises:
        DamagedRecordError: As `read_rows`.

    """
    query = select(LegacyKey.key_sealed).where(LegacyKey.organization_id == owner.id, LegacyKey.user == user)
    rows = session.scalars(query).all()
    return read_rows(owner.name, user, generation, rows, legacy_unseal(plane, owner.id))


def legacy_unseal(plane: ControlPlane, organization_id: int) -> Unseal:
    """Return the function that opens a user's legacy row."""

    def unseal(user: str, sealed: bytes) -> bytes:
        return plane.master_key.open(LEGACY_PURPOSE, f"{organization_id}/{user}", sealed)

    return unseal
