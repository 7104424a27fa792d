"""Migrations as the database knows them: asked for, under way, decided."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore import rules
from pulumi_keystore.certificate import now_utc
from pulumi_keystore.control_plane import history, keystores, organizations
from pulumi_keystore.control_plane.clean_ups import CleanUps
from pulumi_keystore.control_plane.models import CleanUp, Keystore, LegacyKey, Migration, Organization, as_document
from pulumi_keystore.control_plane.plane import ControlPlane
from pulumi_keystore.control_plane.tokens import Principal
from pulumi_keystore.errors import Conflict, InMaintenance, NotFound
from pulumi_keystore.migration.endings import Ending, MigrationFailed
from pulumi_keystore.migration.preflight import preflight
from pulumi_keystore.notify import outbox, templates

USUAL_RATE: Final = 600
"""Keys a second that two servers on one small machine reach; the estimate in previews."""


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


def find(session: Session, owner: Organization, migration_id: str) -> Migration:
    """Return a migration of an organization.

    Raises:
        NotFound: It has no such migration.

    """
    row = session.get(Migration, migration_id) if migration_id.isprintable() else None
    if row is None or row.organization_id != owner.id:
        raise NotFound(
            f"migration: {owner.name!r} has no {migration_id[:40]!r}",
            hint=f"list them with `keystore migration list {owner.name}`",
        )
    return row


def check_ends(plane: ControlPlane, parties: Parties, clean_ups: CleanUps) -> None:
    """Run the preflight of a migration (see `preflight` for what it raises)."""
    source = None if parties.source.kind == "legacy" else plane.vault(parties.organization, parties.source)
    destination = plane.vault(parties.organization, parties.destination)
    preflight(source, destination, lambda: clean_ups.finish(parties.destination.id))


def plan(plane: ControlPlane, organization: str, destination: str) -> dict[str, Any]:
    """Say what a migration would do: from, to, number of keys, estimate, and what is unreachable."""
    with plane.transaction() as session:
        owner = organizations.find(session, organization)
        to = keystores.find(session, owner, destination)
        source = session.get(Keystore, owner.active_keystore_id) if owner.active_keystore_id else None
        keys = organizations.count_keys(session, owner)
    moves = source is not None and source.id != to.id
    tested = {row.name: keystores.test_connection(plane, owner, row) for row in (source, to) if moves and row}
    unreachable = [f"{name}: {state['detail']}" for name, state in tested.items() if state["status"] != "Online"]
    return {
        "organization": organization,
        "source": _label(source) if source else None,
        "destination": _label(to),
        "moves": moves,
        "keys": keys if moves else 0,
        "estimate_s": round(keys / USUAL_RATE, 1) if moves else 0,
        "unreachable": unreachable,
        "maintenance": owner.maintenance_by,
    }


def start(
    plane: ControlPlane,
    who: Principal,
    organization: str,
    destination: str,
    notify_email: str | None,
    clean_ups: CleanUps,
) -> tuple[str | None, bool]:
    """Begin a migration, or attach to the one that already goes there.

    Returns its id, and whether it is new; None where the destination is active already.

    Raises:
        RuleViolation: KS032 (to legacy), KS033 (e-mail).
        InMaintenance: Another migration is running.
        KeystoreFault, Conflict: The destination refuses us or is unfit; nothing was begun.

    """
    if notify_email:
        rules.check_email(notify_email)
    with plane.transaction() as session:
        found = _destination(session, organization, destination)
        if isinstance(found, str) or found is None:
            return found, False
        owner, source, to = found
        probe = Migration(id="", organization_id=owner.id, source_id=source.id, destination_id=to.id)
    # Who cannot be reached now is tried again by the migration, which then ends as the contract says.
    with contextlib.suppress(MigrationFailed):
        check_ends(plane, Parties(probe, owner, source, to), clean_ups)
    with plane.transaction() as session:
        found = _destination(session, organization, destination)
        if isinstance(found, str) or found is None:
            return found, False
        owner, source, to = found
        migration_id = str(uuid.uuid4())
        keys = organizations.count_keys(session, owner)
        row = Migration(
            id=migration_id, organization_id=owner.id, source_id=source.id, destination_id=to.id,
            source=_label(source), destination=_label(to), state="running", phase="preflight", total=keys, done=0,
            notify_email=notify_email or None, requested_by=who.name, started_at=now_utc(),
        )  # fmt: skip
        session.add(row)
        owner.maintenance_by = migration_id
        history.append(
            session, owner.id, who.name, "Migration started", f"{row.source} → {row.destination}, {keys:,} keys"
        )
        letter = templates.migration_starts(owner.name, row.source, row.destination, keys)
        outbox.put(session, migration_id, row.notify_email, letter)
    return migration_id, True


def _destination(
    session: Session, organization: str, destination: str
) -> tuple[Organization, Keystore, Keystore] | str | None:
    """Return what has to move where; the id of a migration that does it already; or None if nothing has to."""
    owner = organizations.find(session, organization, lock=True)
    organizations.require_cloud(owner)
    to = keystores.find(session, owner, destination)
    if to.kind == "legacy":
        raise rules.MIGRATION_TO_LEGACY.violation(f"{destination!r} is a legacy keystore")
    if owner.maintenance_by is not None:
        running = session.get(Migration, owner.maintenance_by)
        if running is not None and running.destination_id == to.id:
            return running.id
        raise InMaintenance(
            f"the organization {organization!r} is in maintenance: a migration to "
            f"{running.destination if running else 'another keystore'} is running",
            hint=f"watch it with `keystore migration watch {organization}` and try again when it has ended",
        )
    if owner.active_keystore_id is None:
        raise Conflict(f"the organization {organization!r} has no active keystore", hint="declare a Keystore first")
    if owner.active_keystore_id == to.id:
        return None
    return owner, session.get_one(Keystore, owner.active_keystore_id), to


def commit(session: Session, migration_id: str) -> bool:
    """Make the destination active: the only point of decision. Return False where it is decided otherwise."""
    row = session.get_one(Migration, migration_id, with_for_update=True)
    if row.state != "running":
        return row.state == "succeeded"
    owner = session.get_one(Organization, row.organization_id, with_for_update=True)
    if owner.maintenance_by != migration_id:
        return False
    source = session.get_one(Keystore, row.source_id)
    owner.active_keystore_id = row.destination_id
    owner.maintenance_by = None
    row.state, row.ending, row.phase, row.ended_at = "succeeded", Ending.SUCCEEDED.value, "clean-up", now_utc()
    if source.kind == "legacy":
        for legacy in session.scalars(select(LegacyKey).where(LegacyKey.organization_id == owner.id)):
            session.delete(legacy)
    else:
        session.add(_clean_up(migration_id, source.id, "source"))
    detail = f"{row.source} → {row.destination}, {row.done:,} keys"
    history.append(session, owner.id, history.SYSTEM, Ending.SUCCEEDED.value, detail)
    letter = templates.migration_succeeds(owner.name, row.destination, row.done)
    outbox.put(session, migration_id, row.notify_email, letter)
    return True


def give_up(session: Session, migration_id: str, ending: Ending, detail: str, *, cleaned: bool) -> None:
    """End a migration that failed: the source stays active. `cleaned` tells whether the destination is empty."""
    row = session.get_one(Migration, migration_id, with_for_update=True)
    if row.state != "running":
        return
    owner = session.get_one(Organization, row.organization_id, with_for_update=True)
    if owner.maintenance_by == migration_id:
        owner.maintenance_by = None
    row.state, row.ending, row.detail, row.phase, row.ended_at = ending.state, ending.value, detail, "ended", now_utc()
    row.copy_ended_at = row.copy_ended_at or now_utc()
    if not cleaned:
        session.add(_clean_up(migration_id, row.destination_id, "destination"))
        detail += "; copies at the destination are removed as soon as it lets us"
    history.append(session, owner.id, history.SYSTEM, ending.value, detail)
    letter = templates.migration_failed(owner.name, row.source, ending.value, detail)
    outbox.put(session, migration_id, row.notify_email, letter)


def running(session: Session) -> list[str]:
    """Return the ids of all migrations that have not ended."""
    return list(session.scalars(select(Migration.id).where(Migration.state == "running")))


def list_all(session: Session, owner: Organization, now: datetime) -> list[dict[str, Any]]:
    """Return the migrations of an organization, the latest first."""
    rows = session.scalars(
        select(Migration).where(Migration.organization_id == owner.id).order_by(Migration.started_at.desc()).limit(100)
    )
    return [describe(session, owner, row, now) for row in rows]


def describe(session: Session, owner: Organization, row: Migration, now: datetime) -> dict[str, Any]:
    """Return a migration with its progress: keys done, rate (keys/s), remaining seconds."""
    rate = None
    if row.copy_started_at is not None and row.done:
        seconds = ((row.copy_ended_at or now) - row.copy_started_at).total_seconds()
        rate = round(row.done / max(seconds, 0.001), 1)
    left = session.scalars(select(CleanUp.side).where(CleanUp.migration_id == row.id, CleanUp.state == "pending")).all()
    return {
        **as_document(
            row, "id", "source", "destination", "state", "phase", "ending", "detail", "total", "done",
            "requested_by", "started_at", "ended_at",
        ),
        "organization": owner.name,
        "rate": rate,
        "remaining_s": round((row.total - row.done) / rate, 1) if rate and row.state == "running" else None,
        "clean_up_pending": list(left),
    }  # fmt: skip


def _clean_up(migration_id: str, keystore_id: int, side: str) -> CleanUp:
    return CleanUp(
        migration_id=migration_id, keystore_id=keystore_id, side=side, state="pending", attempts=0, next_at=now_utc()
    )


def _label(row: Keystore) -> str:
    return f"{row.name} ({row.address or row.kind})"
