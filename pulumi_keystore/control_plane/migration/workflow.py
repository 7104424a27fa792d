"""The durable workflow of a migration (DBOS): each step is safe to repeat, and a restarted service goes on with it.

The workflow plans shards, watches over whoever works on them, and decides; the keys themselves are moved by workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

import structlog
from dbos import DBOS, SetWorkflowID
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError

from pulumi_keystore import failpoints
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, fencing, opening
from pulumi_keystore.control_plane.keystores.clean_ups import CleanUps
from pulumi_keystore.control_plane.migration import lifecycle, online, parties, shards
from pulumi_keystore.control_plane.migration.copy import check_inventory
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.control_plane.migration.supervisor import Outcome, watch_over
from pulumi_keystore.control_plane.migration.tables import Migration, Work
from pulumi_keystore.control_plane.migration.worker import Workers
from pulumi_keystore.control_plane.organizations import maintenance
from pulumi_keystore.control_plane.organizations.tables import Organization
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.leadership import SUPERSEDED_STATUS
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.migration import Mode, Phase, State
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import KeystoreError, KeystoreFault, RecoveryNeeded
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.transport import Transport

_log = structlog.get_logger(__name__)

_context: tuple[ControlPlane, CleanUps, Workers] | None = None

running: Final[set[str]] = set()
"""Ids of the workflows that this process runs."""


@contextmanager
def _run_here() -> Iterator[None]:
    workflow_id = DBOS.workflow_id or ""
    running.add(workflow_id)
    try:
        yield
    finally:
        running.discard(workflow_id)


def configure(plane: ControlPlane, clean_ups: CleanUps, workers: Workers) -> None:
    """Give the workflow what it works with; DBOS workflows are module functions and there is one service a process."""
    global _context  # noqa: PLW0603 - as above
    _context = plane, clean_ups, workers


def begin(migration_id: str) -> None:
    """Start the workflow of a migration, or attach to it: its id is the migration's."""
    with SetWorkflowID(migration_id):
        DBOS.start_workflow(migrate, migration_id)


@DBOS.workflow(name="migrate", max_recovery_attempts=1_000_000)
def migrate(migration_id: str) -> None:
    """Move every key, or none."""
    with _run_here():
        _migrate(migration_id)


def _migrate(migration_id: str) -> None:
    outcome: Outcome = None
    try:
        for name, step in (("preflight", _preflight), ("copy", _copy), ("verify", _verify), ("decide", _decide)):
            outcome = step(migration_id)
            failpoints.reach(f"{name}.recorded")
            if outcome is not None:
                break
    except Exception as error:  # noqa: BLE001 - see below
        # Whatever it is, it must not leave the organization in maintenance; the database knows if it was decided.
        _log.exception("migration step failed", migration=migration_id)
        outcome = [Ending.STALLED.value, f"internal error ({type(error).__name__}); see the service's log"]
    if outcome is not None and not _roll_back(migration_id, outcome):
        outcome = None
    if outcome is None:
        _clean_up(migration_id)
        failpoints.reach("clean-up.recorded")
    else:
        failpoints.reach("roll-back.recorded")


Step = Callable[..., Any]


def _step(name: str) -> Callable[[Step], Step]:
    """Return the decorator of a durable step that rides out a database that fails for a while.

    A service that finds that another one leads ends at once: not even the outcome of the step is its to record.
    """
    durable = DBOS.step(
        name=name,
        retries_allowed=True,
        max_attempts=8,
        interval_seconds=0.5,
        backoff_rate=2.0,
        should_retry=lambda error: isinstance(error, DBAPIError),
    )

    def decorate(step: Step) -> Step:
        @wraps(step)
        def guarded(*arguments: Any) -> Any:
            try:
                return step(*arguments)
            except leadership.Superseded:
                _log.error("another service leads; stopping", step=name)
                os._exit(SUPERSEDED_STATUS)

        decorated: Step = durable(guarded)
        return decorated

    return decorate


@DBOS.workflow(name="finalize", max_recovery_attempts=1_000_000)
def finalize(migration_id: str) -> None:
    """Bring a migration to its end whose workflow has ended without: nobody else would."""
    reason = [Ending.STALLED.value, "internal error; see the service's log"]
    with _run_here():
        if not _roll_back(migration_id, reason):
            _clean_up(migration_id)


@_step("preflight")
def _preflight(migration_id: str) -> Outcome:
    """Prove both ends."""
    failpoints.reach("preflight.begun")
    plane, clean_ups, _ = _given()
    parties = _load(plane, migration_id)
    try:
        lifecycle.check_ends(plane, parties, clean_ups, retry_for_s=plane.settings.retry_s)
    except MigrationFailed as failure:
        return [failure.ending.value, failure.detail]
    except KeystoreError as refusal:
        return [Ending.DESTINATION_NOT_REACHABLE.value, str(refusal)]
    failpoints.reach("preflight.done")
    return None


@_step("copy")
def _copy(migration_id: str) -> Outcome:
    """Have every key written at the destination."""
    failpoints.reach("copy.begun")
    plane, _, workers = _given()
    parties = _load(plane, migration_id)
    # What is enrolled from now on is a late key. Enrolments under way have ended by then: they are in a shard.
    with plane.gate.closed(parties.organization.id), plane.transaction() as session:
        leadership.require_lead(session, plane)
        row = session.get_one(Migration, migration_id)
        owner = session.get_one(Organization, row.organization_id, with_for_update=True)
        maintenance.mirror(owner, row.destination_id)
        shards.plan(session, row, Work.COPY, plane.settings.shard_size)
        row.phase, row.copy_started_at = Phase.COPY, row.copy_started_at or now_utc()
    failpoints.reach("copy.planned")
    workers.wake()
    outcome = watch_over(plane, workers, migration_id, Work.COPY)
    failpoints.reach("copy.done")
    return outcome


@_step("verify")
def _verify(migration_id: str) -> Outcome:
    """Have every key read back, now that nobody can write any more."""
    failpoints.reach("verify.begun")
    plane, _, workers = _given()
    parties = _load(plane, migration_id)
    _note(plane, migration_id, phase=Phase.VERIFY, copy_ended_at=now_utc(), verify_started_at=now_utc())
    destination = _destination(plane, parties, plane.settings.retry_s)
    try:
        with Transport() as transport:
            fencing.fence(plane, transport, destination, parties.organization.id)
            # Of a proof that was killed, or whose answers were lost; after this none can appear any more.
            transport.run_one(destination.remove_canaries(migration_id))
            transport.run_one(destination.revoke())
    except KeystoreFault as fault:
        return [Ending.DESTINATION_NOT_REACHABLE.value, str(fault)]
    failpoints.reach("verify.fenced")
    with plane.transaction() as session:
        leadership.require_lead(session, plane)
        shards.plan(session, session.get_one(Migration, migration_id), Work.VERIFY, plane.settings.shard_size)
    failpoints.reach("verify.planned")
    workers.wake()
    outcome = watch_over(plane, workers, migration_id, Work.VERIFY)
    _note(plane, migration_id, verify_ended_at=now_utc())
    failpoints.reach("verify.done")
    return outcome


@_step("decide")
def _decide(migration_id: str) -> Outcome:
    """Look through the destination's list a last time, and decide."""
    failpoints.reach("decide.begun")
    plane, _, _ = _given()
    parties = _load(plane, migration_id)
    if parties.migration.state != State.RUNNING:
        # Decided by an earlier attempt of this step, whose outcome was not recorded.
        return None if parties.migration.state == State.SUCCEEDED else [Ending.STALLED.value, "it was given up"]
    destination = _destination(plane, parties, plane.settings.retry_s)
    try:
        with Transport() as transport:
            try:
                # What the proof has shown may have been changed since.
                transport.run_one(destination.detect())
                checkpoints.look(plane, transport, destination, parties.organization.id)
                if parties.migration.mode == Mode.ONLINE:
                    online.decide(plane, transport, parties, destination)
                else:
                    check_inventory(transport, destination, parties.migration.verified)
                    with plane.transaction() as session:
                        leadership.require_lead(session, plane)
                        lifecycle.decide(plane, session, migration_id)
                        failpoints.reach("decide.undecided")
            finally:
                transport.run_one(destination.revoke())
    except KeystoreFault as fault:
        return [Ending.DESTINATION_NOT_REACHABLE.value, str(fault)]
    except RecoveryNeeded as refusal:
        return [Ending.STALLED.value, str(refusal)]
    except MigrationFailed as failure:
        return [failure.ending.value, failure.detail]
    failpoints.reach("decide.done")
    _log.info("migration decided", migration=migration_id)
    return None


@_step("roll back")
def _roll_back(migration_id: str, outcome: list[str]) -> bool:
    """Empty the destination of what is ours and end the migration; return False where it has succeeded after all."""
    failpoints.reach("roll-back.begun")
    plane, _, _ = _given()
    parties = _load(plane, migration_id)
    if parties.migration.state != State.RUNNING:
        return parties.migration.state != State.SUCCEEDED
    # Nobody can get a token for it from now on, and no enrolment writes there any more.
    with plane.gate.closed(parties.organization.id), plane.transaction() as session:
        leadership.require_lead(session, plane)
        row = session.get_one(Migration, migration_id, with_for_update=True)
        owner = session.get_one(Organization, row.organization_id, with_for_update=True)
        row.phase = Phase.ROLL_BACK
        maintenance.stop_mirroring(owner)
        shards.take_all_away(session, migration_id)
    destination = _destination(plane, parties)
    cleaned = False
    with Transport() as transport:
        try:
            cleaned = _remove_copies(plane, transport, parties, destination)
        except KeystoreError as error:
            _log.warning("the destination cannot be emptied yet", migration=migration_id, reason=str(error))
        finally:
            transport.run_one(destination.revoke())
    failpoints.reach("roll-back.removed")
    ending, detail = Ending(outcome[0]), outcome[1]
    with plane.transaction() as session:
        leadership.require_lead(session, plane)
        lifecycle.abort(session, migration_id, ending, detail, cleaned=cleaned)
    _log.warning("migration failed", migration=migration_id, ending=ending.value, detail=detail, cleaned=cleaned)
    failpoints.reach("roll-back.done")
    return True


def _remove_copies(
    plane: ControlPlane, transport: Transport, parties: parties.Parties, destination: VaultKeystore
) -> bool:
    """Remove what the migration wrote, where the source still holds it; return whether nothing is left.

    Raises:
        KeystoreError: An end does not answer, or knows more than the database: the copies stay for the time being.

    """
    owner = parties.organization
    fencing.fence(plane, transport, destination, owner.id)
    failpoints.reach("roll-back.fenced")
    with opening.witness(plane, transport, owner, parties.source) as witness:
        for vault in filter(None, (destination, witness.vault)):
            checkpoints.look(plane, transport, vault, owner.id)
        removal = opening.removal(plane, transport, owner, destination, witness)
        return not removal.own(parties.migration.id).kept


@_step("clean up")
def _clean_up(migration_id: str) -> None:
    """Empty the source; what cannot be removed now is worked on in the background."""
    failpoints.reach("clean-up.begun")
    plane, clean_ups, _ = _given()
    _remember(plane, _load(plane, migration_id))
    try:
        clean_ups.of_migration(migration_id)
        failpoints.reach("clean-up.done")
    finally:
        # Decided it is already.
        with plane.transaction() as session:
            session.get_one(Migration, migration_id).phase = Phase.ENDED
            shards.forget(session, migration_id)


def _remember(plane: ControlPlane, parties: parties.Parties) -> None:
    """Leave the decision at both ends, as far as they answer; the clean-up insists on it before it deletes anything."""
    with Transport() as transport:
        for keystore, active in ((parties.destination, True), (parties.source, False)):
            if keystore.kind == Kind.LEGACY:
                continue
            vault = opening.vault_of(
                plane, parties.organization, keystore, announce=fencing.for_leader(plane, keystore)
            )
            try:
                checkpoints.offer(plane, transport, vault, parties.organization.id, active=active)
            finally:
                transport.run_one(vault.revoke())


def _given() -> tuple[ControlPlane, CleanUps, Workers]:
    if _context is None:
        raise RuntimeError("the migration workflow is not configured")
    return _context


def _load(plane: ControlPlane, migration_id: str) -> parties.Parties:
    with plane.transaction() as session:
        return parties.load(session, migration_id)


def _destination(plane: ControlPlane, parties: parties.Parties, retry_for_s: float = 0) -> VaultKeystore:
    """Return the destination; whoever leads after us can end what we log in with."""
    announce = fencing.for_leader(plane, parties.destination)
    return opening.vault_of(
        plane, parties.organization, parties.destination, retry_for_s=retry_for_s, announce=announce
    )


def _note(plane: ControlPlane, migration_id: str, **values: Any) -> None:
    """Write progress for people to see; nothing is decided by it."""
    with plane.transaction() as session:
        session.execute(update(Migration).where(Migration.id == migration_id).values(**values))
