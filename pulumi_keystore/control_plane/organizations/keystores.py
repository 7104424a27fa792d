"""The keystores of an organization, as they are registered."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.answers import KeystoreAnswer
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.tables import iso
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.errors import Conflict, NotFound


def find(session: Session, organization: Organization, name: str) -> Keystore:
    """Return a keystore of an organization.

    Raises:
        NotFound: There is none of that name.

    """
    row = named(session, organization, name) if name.isprintable() else None
    if row is None:
        raise NotFound(
            f"the organization {organization.name!r} has no keystore {name[:100]!r}",
            hint=f"list them with `keystore list {organization.name}`, or declare a Keystore",
        )
    return row


def named(session: Session, organization: Organization, name: str) -> Keystore | None:
    """Return a keystore of an organization, None where there is none of that name."""
    return session.scalar(select(Keystore).where(Keystore.organization_id == organization.id, Keystore.name == name))


def rows(session: Session, organization: Organization) -> list[Keystore]:
    """Return every keystore of an organization, by name."""
    theirs = select(Keystore).where(Keystore.organization_id == organization.id)
    return list(session.scalars(theirs.order_by(Keystore.name)))


def list_all(session: Session, organization: Organization) -> list[KeystoreAnswer]:
    """Return what may be shown of every keystore of an organization."""
    return [describe(organization, row) for row in rows(session, organization)]


def describe(organization: Organization, row: Keystore) -> KeystoreAnswer:
    """Return what may be shown of a keystore."""
    return {
        "organization": organization.name,
        "name": row.name,
        "kind": row.kind,
        "address": row.address,
        "address_display": KeystoreAddress.parse(row.address).display if row.address else None,
        "namespace": row.namespace,
        "mount": row.mount,
        "role": row.role,
        "server_ca": row.server_ca,
        "certificate_fingerprint": row.certificate_fingerprint,
        "certificate_not_after": iso(row.certificate_not_after),
        "kv_version": row.kv_version,
        "cluster_id": row.cluster_id,
        "revision": row.revision,
        "proved_at": iso(row.proved_at),
        "created_at": row.created_at.isoformat(),
        "active": organization.active_keystore_id == row.id,
    }


def active_keystore(session: Session, row: Organization) -> Keystore | None:
    """Return the keystore in use, None where there is none yet."""
    return session.get(Keystore, row.active_keystore_id) if row.active_keystore_id else None


def require_active(session: Session, owner: Organization) -> Keystore:
    """Return the keystore in use.

    Raises:
        Conflict: There is none yet.

    """
    active = active_keystore(session, owner)
    if active is None:
        raise Conflict(
            f"the organization {owner.name!r} has no active keystore", hint="declare a Keystore for it first"
        )
    return active
