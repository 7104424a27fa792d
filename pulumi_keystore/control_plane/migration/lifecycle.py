"""Migrations as the database knows them: asked for, under way, decided."""

from __future__ import annotations

import contextlib
import uuid
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from pulumi_keystore import failpoints, rules
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.identity.roles import Principal
from pulumi_keystore.control_plane.keystores import checkpoints, fencing, handover, opening
from pulumi_keystore.control_plane.keystores import clean_ups as clean_ups_of
from pulumi_keystore.control_plane.keystores.clean_ups import CleanUps
from pulumi_keystore.control_plane.keystores.tables import CleanUp, CleanUpState, Side
from pulumi_keystore.control_plane.migration import messages, shards
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.control_plane.migration.parties import Parties
from pulumi_keystore.control_plane.migration.planning import title
from pulumi_keystore.control_plane.migration.preflight import preflight
from pulumi_keystore.control_plane.migration.receipt import make_receipt, receipt_text
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.migration.views import find
from pulumi_keystore.control_plane.notifications import mail
from pulumi_keystore.control_plane.organizations import history, keystores, ledger, maintenance, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, LateKey, LegacyKey, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.migration import Mode, Phase, State, check_mode
from pulumi_keystore.declarations.names import NO_ONE, Kind, notified
from pulumi_keystore.errors import Conflict, InMaintenance, TooManyRequests
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.transport import Transport


def check_ends(
    plane: ControlPlane,
    parties: Parties,
    clean_ups: CleanUps,
    *,
    retry_for_s: float = 0,
) -> None:
    """Run the preflight of a migration (see `preflight` for what it raises).

    Args:
        plane: Where both ends are written down.
        parties: What is migrated.
        clean_ups: What earlier migrations left.
        retry_for_s: For how long an end that does not answer is tried again.

    """
    owner, to = parties.organization, parties.destination
    source = None
    if parties.source.kind != Kind.LEGACY:
        source = opening.vault_of(plane, owner, parties.source, retry_for_s=retry_for_s)
    announce = fencing.for_leader(plane, to)
    destination = opening.vault_of(plane, owner, to, retry_for_s=retry_for_s, announce=announce)

    def look(transport: Transport, vault: VaultKeystore) -> None:
        checkpoints.look(plane, transport, vault, owner.id)

    def make_room(transport: Transport) -> None:
        # Of whoever wrote or deleted there before, under whatever name the place was registered.
        fencing.fence(plane, transport, destination, owner.id)
        clean_ups.finish(to.id)
        if destination.count(transport):
            _remove_old_copies(plane, transport, parties, destination)

    preflight(source, destination, parties.migration.id, look, make_room)


def _remove_old_copies(plane: ControlPlane, transport: Transport, parties: Parties, destination: VaultKeystore) -> None:
    """Remove what an earlier life has left at the destination, as far as the active keystore holds the same keys."""
    owner = parties.organization
    with opening.witness(plane, transport, owner, parties.source) as witness:
        tally = opening.removal(plane, transport, owner, destination, witness).all_keys()
    if tally.removed:
        detail = (
            f"{parties.destination.name} ({parties.destination.address}): {count(tally.removed, 'copy')} of keys "
            "that the active keystore holds: removed"
        )
        with plane.transaction() as session:
            history.append(session, owner.id, history.SYSTEM, "Old copies removed", detail)


def check_request(notify_email: str | None, mode: str) -> tuple[str | None, Mode]:
    """Return what a migration is asked for with, or raise `RuleViolation` (KS033, KS038) for what it cannot be."""
    return notified(notify_email) if notify_email is not None else None, check_mode(mode)


def start(
    plane: ControlPlane,
    actor: Principal,
    organization: str,
    destination: str,
    notify_email: str | None,
    clean_ups: CleanUps,
    mode: str = Mode.MAINTENANCE,
) -> tuple[str | None, bool]:
    """Begin a migration, or attach to the one that already goes there.

    Returns its id, and whether it is new; None where the destination is active already. `notify_email` is an address,
    or `NO_ONE`; None where that is not said, which leaves it to a migration that runs already.

    Raises:
        RuleViolation: KS106 (to legacy), KS033 (e-mail), KS038 (mode).
        InMaintenance: Another migration is running.
        TooManyRequests: People of the organization have begun as many in this hour as they may.
        KeystoreFault, Conflict: The destination refuses us or is unfit; nothing was begun.

    """
    asked, chosen = check_request(notify_email, mode)
    migration_id = str(uuid.uuid4())
    with plane.transaction() as session:
        found = _destination(session, organization, destination, chosen, asked)
        if isinstance(found, str) or found is None:
            return found, False
        owner, source, to = found
        _require_vault(source, chosen)
        if actor.organization is not None:
            _require_migrations_left(session, owner, plane.settings.migrations_per_hour)
        # If this process is killed while it proves the destination, somebody has to remove the canary.
        proof = clean_ups_of.new(migration_id, to, Side.PROOF, state=CleanUpState.RESERVED)
        session.add(proof)
    probe = Migration(id=migration_id, organization_id=owner.id, source_id=source.id, destination_id=to.id)
    try:
        # Who cannot be reached now is tried again by the migration, which then ends as the contract says.
        with contextlib.suppress(MigrationFailed):
            check_ends(plane, Parties(probe, owner, source, to), clean_ups)
    except BaseException:
        clean_ups.release(proof.id)
        raise
    failpoints.reach("start.checked")
    with plane.gate.closed(owner.id), plane.transaction() as session:
        session.delete(session.get_one(CleanUp, proof.id))
        found = _destination(session, organization, destination, chosen, asked)
        if isinstance(found, str) or found is None:
            return found, False
        owner, source, to = found
        keys = ledger.count_keys(session, owner)
        row = Migration(
            id=migration_id, organization_id=owner.id, source_id=source.id, destination_id=to.id,
            source=title(source), destination=title(to), state=State.RUNNING, phase=Phase.PREFLIGHT, mode=chosen,
            total=keys, done=0, verified=0, notify_email=None if asked == NO_ONE else asked,
            requested_by=actor.name, started_at=now_utc(),
        )  # fmt: skip
        session.add(row)
        maintenance.begin(owner, migration_id, chosen)
        online = ", online" if chosen == Mode.ONLINE else ""
        history.append(
            session,
            owner.id,
            actor.name,
            "Migration started",
            f"{row.source} → {row.destination}, {count(keys, 'key')}{online}",
        )
        message = messages.migration_starts(owner.name, row.source, row.destination, keys, online=chosen == Mode.ONLINE)
        mail.put(session, row.organization_id, migration_id, row.notify_email, message)
    failpoints.reach("start.recorded")
    return migration_id, True


def _require_migrations_left(session: Session, owner: Organization, most: int) -> None:
    """Raise where an organization migrates again and again: each time is work for keystores, and for this service."""
    begun = (Migration.organization_id == owner.id, Migration.started_at > now_utc() - timedelta(hours=1))
    if (session.scalar(select(func.count()).where(*begun)) or 0) >= most:
        raise TooManyRequests(
            f"{count(most, 'migration')} of the organization {owner.name!r} began in the last hour",
            hint="wait an hour, or ask the provider, whose tokens are not limited",
        )


def _require_as_asked(row: Migration, mode: Mode, notify_email: str | None) -> None:
    """Raise where a migration that runs already does not do what is asked for.

    Raises:
        InMaintenance: It would be believed that users can be created, or that others, or no one, are notified.

    """
    told = f"notifies {row.notify_email}" if row.notify_email else "notifies no one"
    if row.mode != mode or notify_email not in (None, row.notify_email or NO_ONE):
        raise InMaintenance(
            f"a migration to {row.destination} is running already with other options: mode {row.mode}, and it {told}",
            hint="wait for it to finish, or cancel it and start again with these options",
        )


def _require_vault(source: Keystore, mode: Mode) -> None:
    if mode == Mode.ONLINE and source.kind == Kind.LEGACY:
        raise rules.MIGRATION_MODE.violation("a legacy keystore cannot be migrated online")


def cancel(session: Session, owner: Organization, migration_id: str, actor: str) -> Migration:
    """Ask a migration to end where it is: everything goes back to the source. Safe to repeat.

    Raises:
        NotFound: There is no such migration.
        Conflict: It has ended, or it has been decided.

    """
    row = find(session, owner, migration_id)
    session.refresh(row, with_for_update=True)
    if row.state != State.RUNNING:
        raise Conflict(
            f"the migration {migration_id} has ended: {row.ending}",
            hint="to move the keys back, migrate to the keystore they came from",
        )
    row.cancel_by = row.cancel_by or actor
    return row


def canceled(by: str) -> str:
    """Return what history says of a migration that somebody canceled."""
    return f"canceled by {by}"


def count_late(session: Session, migration_id: str) -> int:
    """Return how many late keys have been read back at the destination."""
    query = select(func.count()).where(LateKey.migration_id == migration_id, LateKey.verified.is_(True))
    return session.scalar(query) or 0


def _destination(
    session: Session, organization: str, destination: str, mode: Mode, notify_email: str | None
) -> tuple[Organization, Keystore, Keystore] | str | None:
    """Return what has to move where; the id of a migration that does it already; or None if nothing has to."""
    owner = registry.find(session, organization, lock=True)
    maintenance.require_cloud(owner)
    registry.require_known(owner)
    to = keystores.find(session, owner, destination)
    if to.kind == Kind.LEGACY:
        raise rules.MIGRATION_TO_LEGACY.violation(f"{destination!r} is a legacy keystore")
    if owner.maintenance_by is not None:
        running = session.get(Migration, owner.maintenance_by)
        if running is not None and running.destination_id == to.id:
            _require_as_asked(running, mode, notify_email)
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


def decide(plane: ControlPlane, session: Session, migration_id: str) -> None:
    """Make the destination active: the only point of decision. Safe to repeat.

    Raises:
        MigrationFailed: It has been canceled, or not every enrolled key has been copied and read back.

    """
    row = session.get_one(Migration, migration_id, with_for_update=True)
    if row.state == State.SUCCEEDED:
        return
    owner = session.get_one(Organization, row.organization_id, with_for_update=True)
    if row.cancel_by is not None:
        raise MigrationFailed(Ending.STALLED, canceled(row.cancel_by))
    if owner.suspended is not None:
        raise MigrationFailed(Ending.STALLED, f"the organization is suspended: {owner.suspended}")
    if row.state != State.RUNNING or owner.maintenance_by != migration_id:
        raise MigrationFailed(Ending.STALLED, "the organization left maintenance before the decision")
    receipt = make_receipt(session, row, owner)
    source = session.get_one(Keystore, row.source_id)
    checkpoints.advance(owner)
    owner.active_keystore_id = row.destination_id
    maintenance.end(owner)
    row.state, row.ending, row.phase, row.ended_at = (
        State.SUCCEEDED,
        Ending.SUCCEEDED.value,
        Phase.CLEAN_UP,
        now_utc(),
    )
    row.total = row.done = row.verified = receipt["keys"]
    row.receipt = {**receipt, "ended_at": row.ended_at.isoformat()}
    if source.kind == Kind.LEGACY:
        session.execute(delete(LegacyKey).where(LegacyKey.organization_id == owner.id))
    else:
        retain_s = plane.settings.retain_s
        session.add(clean_ups_of.new(migration_id, source, Side.SOURCE, wait_s=retain_s))
    annotated = shards.annotated(session, migration_id)
    remark = f"; {count(annotated, 'key')} had custom metadata, which is not moved" if annotated else ""
    if left_behind := receipt["given_up"]:
        remark += f"; {left_behind:,} keys that were given up are missing"
    detail = f"{row.source} → {row.destination}, {count(row.done, 'key')}{remark}; {receipt_text(row)}"
    history.append(session, owner.id, history.SYSTEM, Ending.SUCCEEDED.value, detail)
    destination = session.get_one(Keystore, row.destination_id)
    if (told := handover.carry_alerts(session, plane, source, destination)) is not None:
        detail = f"{source.name} → {destination.name}: {told}"
        history.append(session, owner.id, history.SYSTEM, "Alerts carried over", detail)
    message = messages.migration_succeeds(owner.name, row.destination, row.done)
    mail.put(session, row.organization_id, migration_id, row.notify_email, message)


def abort(session: Session, migration_id: str, ending: Ending, detail: str, *, cleaned: bool) -> None:
    """End a migration that failed: the source stays active. `cleaned` tells whether the destination is empty."""
    row = session.get_one(Migration, migration_id, with_for_update=True)
    if row.state != State.RUNNING:
        return
    owner = session.get_one(Organization, row.organization_id, with_for_update=True)
    if owner.maintenance_by == migration_id:
        maintenance.end(owner)
    row.state, row.ending, row.detail, row.phase, row.ended_at = (
        ending.state,
        ending.value,
        detail,
        Phase.ENDED,
        now_utc(),
    )
    row.copy_ended_at = row.copy_ended_at or now_utc()
    if not cleaned:
        destination = session.get_one(Keystore, row.destination_id)
        session.add(clean_ups_of.new(migration_id, destination, Side.DESTINATION))
        detail += "; copies at the destination are removed as soon as it lets us"
    shards.forget(session, migration_id)
    history.append(session, owner.id, history.SYSTEM, ending.value, detail)
    if row.cancel_by is not None and ending is Ending.STALLED:
        message = messages.migration_canceled(owner.name, row.source, row.cancel_by)
    else:
        message = messages.migration_failed(owner.name, row.source, ending.value, detail)
    mail.put(session, row.organization_id, migration_id, row.notify_email, message)


def unfinished(session: Session) -> list[str]:
    """Return the ids of all migrations whose workflow has not come to its end."""
    return list(session.scalars(select(Migration.id).where(Migration.phase != Phase.ENDED)))
