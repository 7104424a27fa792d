"""What a verified migration leaves in the history: numbers, digests of both inventories, clusters, when, and who."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.migration import shards
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.control_plane.migration.tables import Migration, Work
from pulumi_keystore.control_plane.organizations import ledger
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, LateKey, Organization


def make_receipt(session: Session, row: Migration, owner: Organization) -> dict[str, Any]:
    """Return what was found at both ends, as one record.

    Raises:
        MigrationFailed: Both inventories are not the same, or are not those of every enrolled key.

    """
    left = shards.inventory(session, row.id, Work.COPY)
    arrived = shards.inventory(session, row.id, Work.VERIFY)
    late = select(ArchiveKeyEntry.fingerprint).join(
        LateKey, (LateKey.migration_id == row.id) & (LateKey.user == ArchiveKeyEntry.user)
    )
    for fingerprint in session.scalars(late.where(ArchiveKeyEntry.organization_id == owner.id, LateKey.verified)):
        left.add(fingerprint)
        arrived.add(fingerprint)
    enrolled = ledger.count_keys(session, owner)
    given_up = enrolled - arrived.count
    if left != arrived or not 0 <= given_up <= ledger.count_given_up(session, owner.id):
        raise MigrationFailed(
            Ending.VERIFICATION_FAILED,
            f"{enrolled:,} keys are enrolled, {left.count:,} were read at the source and {arrived.count:,} at the "
            "destination" + ("" if left.total == arrived.total else ", and they are not the same"),
        )
    source, destination = (session.get_one(Keystore, number) for number in (row.source_id, row.destination_id))
    return {
        "migration": row.id,
        "organization": owner.name,
        "keys": arrived.count,
        "given_up": given_up,
        "inventory_source": left.digest.hex(),
        "inventory_destination": arrived.digest.hex(),
        "cluster_source": source.cluster_id,
        "cluster_destination": destination.cluster_id,
        "mode": row.mode,
        "writes_held_s": round(row.held_s, 3) if row.held_s is not None else None,
        "started_at": row.started_at.isoformat(),
        "requested_by": row.requested_by,
    }


def receipt_text(row: Migration) -> str:
    """Return a receipt in words, for the history."""
    receipt = row.receipt or {}
    held = f", writes held {receipt['writes_held_s']:g} s" if receipt["writes_held_s"] is not None else ""
    return (
        f"receipt: inventory {receipt['inventory_source']} at the source, {receipt['inventory_destination']} at the "
        f"destination; cluster {receipt['cluster_source'] or 'none'} → {receipt['cluster_destination']}; "
        f"{receipt['started_at']} to {receipt['ended_at']}{held}; by {receipt['requested_by']}"
    )
