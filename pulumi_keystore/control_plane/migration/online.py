"""Keys that are enrolled while their organization migrates online: they go to both sides, and are made sure of here.

Enrolments are held only for the last look: whatever came until then is copied and read back before, again and again
until there is little left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pulumi_keystore import failpoints
from pulumi_keystore.control_plane.keystores import opening
from pulumi_keystore.control_plane.migration import lifecycle, parties
from pulumi_keystore.control_plane.migration.copy import Copier, VaultSource, check_inventory
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, LateKey
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import DamagedRecordError, Entry
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.transport import Transport

_FEW: Final = 50
"""So many keys may be left for the time in which enrolments are held."""
_PAGE: Final = 1000
_log = structlog.get_logger(__name__)


class _TooLong(Exception):  # noqa: N818 - it ends one attempt, and nothing else
    """Enrolments were held as long as they may be."""


def decide(plane: ControlPlane, transport: Transport, parties: parties.Parties, destination: VaultKeystore) -> None:
    """Catch up with the late keys; then, with enrolments held, with the last ones, and decide.

    Raises:
        MigrationFailed: A key differs, is missing or surplus, or cannot be moved; or it was canceled.
        KeystoreFault: The destination cannot be reached.

    """
    if parties.source.kind == Kind.LEGACY:
        raise MigrationFailed(Ending.STALLED, "a legacy keystore cannot be migrated online")
    migration_id = parties.migration.id
    source = opening.vault_of(plane, parties.organization, parties.source, retry_for_s=plane.settings.retry_s)
    copier = Copier(VaultSource(source), destination, migration_id, plane.master_key.fingerprint)
    longest = plane.settings.hold_s
    try:
        while True:
            while _catch_up(plane, transport, copier, migration_id, lambda: None) > _FEW:
                _require_going_on(plane, migration_id)
            begun = time.monotonic()
            try:
                _hold_and_decide(plane, transport, parties, copier, begun + longest)
            except _TooLong:
                _let_go(plane, migration_id, begun)
                # An organization so large that its list alone takes longer shall still come to an end.
                longest *= 2
            except MigrationFailed:
                _let_go(plane, migration_id, begun)
                if not _remove_unacknowledged(plane, transport, parties, destination):
                    raise
            else:
                return
    finally:
        transport.run_one(source.revoke())


def _hold_and_decide(
    plane: ControlPlane, transport: Transport, parties: parties.Parties, copier: Copier, deadline: float
) -> None:
    def in_time() -> None:
        if time.monotonic() > deadline:
            raise _TooLong

    migration_id = parties.migration.id
    with plane.gate.closed(parties.organization.id):
        begun = time.monotonic()
        while _catch_up(plane, transport, copier, migration_id, in_time):
            pass
        with plane.transaction() as session:
            expected = _expected(session, migration_id)
        check_inventory(transport, copier.destination, expected)
        in_time()
        with plane.transaction() as session:
            leadership.require_lead(session, plane)
            row = session.get_one(Migration, migration_id)
            row.held_s = (row.held_s or 0.0) + time.monotonic() - begun
            lifecycle.decide(plane, session, migration_id)
            failpoints.reach("decide.undecided")


def _catch_up(
    plane: ControlPlane, transport: Transport, copier: Copier, migration_id: str, watch: Callable[[], None]
) -> int:
    """Copy and read back a page of the late keys that are not verified yet; return how many there were."""
    with plane.transaction() as session:
        rows = session.execute(
            select(ArchiveKeyEntry.user, ArchiveKeyEntry.generation, ArchiveKeyEntry.fingerprint)
            .join(Migration, Migration.organization_id == ArchiveKeyEntry.organization_id)
            .join(LateKey, (LateKey.migration_id == Migration.id) & (LateKey.user == ArchiveKeyEntry.user))
            .where(Migration.id == migration_id, LateKey.verified.is_(False))
            .limit(_PAGE)
        ).all()
    entries = [Entry(*row) for row in rows]

    def both(entry: Entry) -> Flow[str]:
        yield from copier.copy(entry)
        yield from copier.verify(entry)
        return entry.user

    moved = list(transport.run((both(entry) for entry in entries), plane.settings.in_flight, watch))
    with plane.transaction() as session:
        session.execute(
            update(LateKey).where(LateKey.migration_id == migration_id, LateKey.user.in_(moved)).values(verified=True)
        )
    return len(moved)


def _remove_unacknowledged(
    plane: ControlPlane, transport: Transport, parties: parties.Parties, destination: VaultKeystore
) -> int:
    """Remove what enrolments wrote at the destination and then did not complete: ours, but nobody's key.

    Returns how many there were.
    """

    def look(name: str) -> Flow[tuple[str, str] | None]:
        try:
            record = yield from destination.read(name)
        except DamagedRecordError:
            return None
        return None if record is None or record.origin != parties.migration.id else (name, record.user)

    owner, removed = parties.organization, 0
    with opening.witness(plane, transport, owner, parties.source) as witness:
        removal = opening.removal(plane, transport, owner, destination, witness, undisturbed=nullcontext)
        for page in destination.key_pages(transport):
            seen = list(transport.run(map(look, page), plane.settings.in_flight))
            for name, user in filter(None, seen):
                # With the gate closed: an enrolment that is under way is written down by then, or has failed.
                with plane.gate.closed(owner.id):
                    with plane.transaction() as session:
                        nobodys = session.get(ArchiveKeyEntry, (owner.id, user)) is None
                    if nobodys:
                        removed = removal.names([name], parties.migration.id).removed
    return removed


def _let_go(plane: ControlPlane, migration_id: str, begun: float) -> None:
    held = time.monotonic() - begun
    with plane.transaction() as session:
        row = session.get_one(Migration, migration_id)
        row.held_s = (row.held_s or 0.0) + held
    _log.info("enrolments were held without coming to a decision", migration=migration_id, seconds=round(held, 2))


def _expected(session: Session, migration_id: str) -> int:
    """Return how many keys have been read back at the destination."""
    row = session.get_one(Migration, migration_id)
    return row.verified + lifecycle.count_late(session, migration_id)


def _require_going_on(plane: ControlPlane, migration_id: str) -> None:
    with plane.transaction() as session:
        cancel_by = session.scalar(select(Migration.cancel_by).where(Migration.id == migration_id))
    if cancel_by is not None:
        raise MigrationFailed(Ending.STALLED, lifecycle.canceled(cancel_by))
