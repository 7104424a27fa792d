"""The organization and the two keystores of a migration."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization


@dataclass(frozen=True, slots=True)
class Parties:
    """A migration with everything it is about, as loaded in one transaction."""

    migration: Migration
    organization: Organization
    source: Keystore
    destination: Keystore


def load(session: Session, migration_id: str) -> Parties:
    """Return a migration with its organization and both keystores."""
    row = session.get_one(Migration, migration_id)
    return Parties(
        row,
        session.get_one(Organization, row.organization_id),
        session.get_one(Keystore, row.source_id),
        session.get_one(Keystore, row.destination_id),
    )
