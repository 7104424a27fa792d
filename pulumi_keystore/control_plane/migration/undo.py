"""The way back from a migration, as long as the keys are retained at its source (`KEYSTORE_RETAIN_S`).

The source holds every key that has moved, so nothing of what it needs depends on the destination but what was enrolled
there since: that is copied back, and read back, the last of it with enrolments held.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, clean_ups, fencing, opening
from pulumi_keystore.control_plane.keystores.tables import CleanUp, CleanUpState, Side
from pulumi_keystore.control_plane.migration import views
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.organizations import history, ledger, maintenance, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.counting import count
from pulumi_keystore.errors import Conflict, KeystoreFault
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import DamagedRecordError, Entry
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.transport import Transport


@dataclass(frozen=True, slots=True)
class _Way:
    """What the way back leads between; `source` is the keystore that becomes the active one again."""

    migration: Migration
    owner: Organization
    source: Keystore
    destination: Keystore
    clean_up: int


def undo(plane: ControlPlane, actor: str, organization: str, migration_id: str) -> None:
    """Make the source of a migration the active keystore again.

    Raises:
        NotFound: There is no such migration.
        Conflict: Its source is being emptied, or it is not the latest one; nothing was changed.
        KeystoreFault: A key is neither at the source nor can it be read at the destination; nothing was changed.

    """
    with plane.transaction() as session:
        way = _find(session, organization, migration_id)
        # The clean-up must not begin meanwhile; a process that is killed here leaves it to the next one.
        session.get_one(CleanUp, way.clean_up).state = CleanUpState.RESERVED
    try:
        with (
            Transport() as transport,
            opening.opened(plane, transport, way.owner, way.source) as back,
            opening.opened(plane, transport, way.owner, way.destination) as active,
        ):
            fencing.fence(plane, transport, back, way.owner.id)
            for vault in (back, active):
                _look(plane, transport, vault, way)
            with plane.gate.closed(way.owner.id), plane.transaction() as session:
                last = ledger.highest(session, way.owner.id)
            _bring(plane, transport, way, back, active, ledger.entries(plane, way.owner.id))
            with plane.gate.closed(way.owner.id):
                with plane.transaction() as session:
                    fresh = ledger.since(session, way.owner.id, last)
                _bring(plane, transport, way, back, active, fresh)
                with plane.transaction() as session:
                    leadership.require_lead(session, plane)
                    owner = registry.find(session, organization, lock=True)
                    _require_unchanged(owner, way)
                    _decide(session, actor, owner, way)
            for vault, is_active in ((back, True), (active, False)):
                checkpoints.offer(plane, transport, vault, way.owner.id, active=is_active)
    except BaseException:
        with plane.transaction() as session:
            row = session.get_one(CleanUp, way.clean_up)
            if row.state == CleanUpState.RESERVED:
                row.state = CleanUpState.PENDING
        raise


def _find(session: Session, organization: str, migration_id: str) -> _Way:
    owner = registry.find(session, organization, lock=True)
    registry.require_known(owner)
    maintenance.require_no_maintenance(owner)
    row = views.find(session, owner, migration_id)
    clean_up = views.retained(session, row, now_utc())
    if clean_up is None or owner.active_keystore_id != row.destination_id:
        raise Conflict(
            f"the migration {migration_id} cannot be undone: its source is being emptied, or others came after it",
            hint="to move the keys back, migrate to the keystore they came from",
        )
    source, destination = (session.get_one(Keystore, number) for number in (row.source_id, row.destination_id))
    return _Way(row, owner, source, destination, clean_up.id)


def _require_unchanged(owner: Organization, way: _Way) -> None:
    registry.require_known(owner)
    maintenance.require_no_maintenance(owner)
    if owner.active_keystore_id != way.destination.id:
        raise Conflict(
            "another keystore has become the active one meanwhile", hint="check its current state and try again"
        )


def _look(plane: ControlPlane, transport: Transport, vault: VaultKeystore, way: _Way) -> None:
    """Compare what a keystore remembers; the one that is given up may be away: that is what the way back is for."""
    try:
        checkpoints.look(plane, transport, vault, way.owner.id)
    except KeystoreFault:
        if str(vault) == way.source.address:
            raise


def _bring(
    plane: ControlPlane,
    transport: Transport,
    way: _Way,
    back: VaultKeystore,
    active: VaultKeystore,
    entries: Iterable[Entry],
) -> None:
    """Make sure that the source holds some keys; copy back those that it lacks."""

    def bring(entry: Entry) -> Flow[None]:
        try:
            found = yield from back.read(entry.name)
            if found is None:
                record = yield from active.read(entry.name)
                if record is None and entry.given_up:
                    return
                if record is not None and ledger.is_enrolled(plane, way.owner, entry, record):
                    found = yield from back.ensure(record)
        except DamagedRecordError:
            found = None
        if not ledger.is_enrolled(plane, way.owner, entry, found):
            raise KeystoreFault(
                f"{back}: lacks the archive key of {entry.user[:100]!r}, and {active} does not have it either",
                hint=f"`keystore verify {way.owner.name}` names what is missing",
            )

    for _ in transport.run(map(bring, entries), plane.settings.in_flight):
        pass


def _decide(session: Session, actor: str, owner: Organization, way: _Way) -> None:
    checkpoints.advance(owner)
    owner.active_keystore_id = way.source.id
    done = session.get_one(CleanUp, way.clean_up)
    done.state, done.detail = CleanUpState.DONE, "nothing was removed: the migration was undone"
    session.add(clean_ups.new(way.migration.id, way.destination, Side.SOURCE))
    detail = f"{way.destination.name} → {way.source.name}, {count(ledger.count_keys(session, owner), 'key')}"
    history.append(session, owner.id, actor, "Migration undone", detail)
