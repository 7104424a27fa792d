"""The durable workflow of a migration (DBOS): each step is safe to repeat, and a restarted service goes on with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

import structlog
from dbos import DBOS, SetWorkflowID
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from pulumi_keystore.certificate import now_utc
from pulumi_keystore.control_plane import keystores, migrations
from pulumi_keystore.control_plane.archive_keys import legacy_unseal
from pulumi_keystore.control_plane.clean_ups import CleanUps
from pulumi_keystore.control_plane.models import LegacyKey, Migration
from pulumi_keystore.control_plane.plane import ControlPlane
from pulumi_keystore.errors import KeystoreError, KeystoreFault
from pulumi_keystore.keystores.legacy import read_rows
from pulumi_keystore.keystores.record import ArchiveKey
from pulumi_keystore.keystores.transport import Flow, Transport
from pulumi_keystore.migration.copy import Copier, Entry, Source, StallWatch, VaultSource, check_inventory, remove_own
from pulumi_keystore.migration.endings import Ending, MigrationFailed

_PROGRESS_EVERY_S: Final = 0.5
_log = structlog.get_logger(__name__)

Outcome = list[str] | None
"""Ending and detail of a failure, as recorded by DBOS; None for "go on"."""

_plane: ControlPlane | None = None
_clean_ups: CleanUps | None = None


def configure(plane: ControlPlane, clean_ups: CleanUps) -> None:
    """Give the workflow what it works with; DBOS workflows are module functions and there is one service a process."""
    global _plane, _clean_ups
    _plane, _clean_ups = plane, clean_ups


def begin(migration_id: str) -> None:
    """Start the workflow of a migration, or attach to it: its id is the migration's."""
    with SetWorkflowID(migration_id):
        DBOS.start_workflow(migrate, migration_id)


@DBOS.workflow(name="migrate", max_recovery_attempts=1_000_000)
def migrate(migration_id: str) -> None:
    """Move every key, or none."""
    outcome: Outcome = None
    try:
        outcome = _preflight(migration_id)
        after: str | None = None
        done, last = 0, False
        while outcome is None and not last:
            shard = _copy(migration_id, after, done)
            outcome, after, done, last = shard["failed"], shard["after"], shard["done"], shard["last"]
        if outcome is None:
            outcome = _verify(migration_id)
        if outcome is None and not _commit(migration_id):
            outcome = [Ending.STALLED.value, "the organization left maintenance before the commit"]
    except Exception as error:  # noqa: BLE001 - see below
        # Whatever it is, it must not leave the organization in maintenance; the database knows if it committed.
        _log.exception("migration step failed", migration=migration_id)
        outcome = [Ending.STALLED.value, f"internal error ({type(error).__name__}); see the service's log"]
    if outcome is None:
        _clean_up(migration_id)
    else:
        _roll_back(migration_id, outcome)


def _step(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator of a durable step that rides out a lost database connection."""
    return DBOS.step(
        name=name,
        retries_allowed=True,
        max_attempts=8,
        interval_seconds=0.5,
        backoff_rate=2.0,
        should_retry=lambda error: isinstance(error, OperationalError),
    )


@_step("preflight")
def _preflight(migration_id: str) -> Outcome:
    plane, clean_ups = _context()
    parties = _load(plane, migration_id)
    try:
        migrations.check_ends(plane, parties, clean_ups)
    except MigrationFailed as failure:
        return [failure.ending.value, failure.detail]
    except KeystoreError as refusal:
        return [Ending.DESTINATION_NOT_REACHABLE.value, str(refusal)]
    _note(plane, migration_id, phase="copy", copy_started_at=now_utc())
    return None


@_step("copy")
def _copy(migration_id: str, after: str | None, done: int) -> dict[str, Any]:
    """Copy the entries after a user id, one shard. After a crash it finds its own copies and compares them."""
    plane, _ = _context()
    parties = _load(plane, migration_id)
    size = plane.settings.shard_size
    shard = list(islice(keystores.entries(plane, parties.organization.id, after), size))
    source = _source(plane, parties, shard)
    destination = plane.vault(parties.organization, parties.destination, retry_for_s=plane.settings.retry_s)
    copier = Copier(source, destination, migration_id, plane.master_key.fingerprint)
    count, told = 0, time.monotonic()
    failed: Outcome = None
    watch = StallWatch(plane.settings.stall_s)
    try:
        with Transport() as transport:
            for _ in copier.run(transport, shard, plane.settings.in_flight, watch):
                count += 1
                if time.monotonic() - told > _PROGRESS_EVERY_S:
                    told = time.monotonic()
                    _note(plane, migration_id, done=done + count)
    except MigrationFailed as failure:
        failed = [failure.ending.value, failure.detail]
    _note(plane, migration_id, done=done + count)
    last_user = shard[-1].user if shard else after
    return {"failed": failed, "after": last_user, "done": done + count, "last": len(shard) < size}


@_step("verify")
def _verify(migration_id: str) -> Outcome:
    """Compare the destination's inventory with what was enrolled: nothing missing, nothing surplus."""
    plane, _ = _context()
    parties = _load(plane, migration_id)
    _note(plane, migration_id, phase="verify", copy_ended_at=now_utc())
    destination = plane.vault(parties.organization, parties.destination, retry_for_s=plane.settings.retry_s)
    try:
        with Transport() as transport:
            try:
                names = transport.run_one(destination.names())
            finally:
                transport.run_one(destination.revoke())
        check_inventory(names, {entry.name for entry in keystores.entries(plane, parties.organization.id)})
    except KeystoreFault as fault:
        return [Ending.DESTINATION_NOT_REACHABLE.value, str(fault)]
    except MigrationFailed as failure:
        return [failure.ending.value, failure.detail]
    return None


@_step("commit")
def _commit(migration_id: str) -> bool:
    plane, _ = _context()
    with plane.transaction() as session:
        committed = migrations.commit(session, migration_id)
    _log.info("migration committed", migration=migration_id, committed=committed)
    return committed


@_step("roll back")
def _roll_back(migration_id: str, outcome: list[str]) -> None:
    plane, _ = _context()
    ending, detail = Ending(outcome[0]), outcome[1]
    parties = _load(plane, migration_id)
    if parties.migration.state != "running":
        return
    _note(plane, migration_id, phase="clean-up")
    destination = plane.vault(parties.organization, parties.destination)
    cleaned = True
    with Transport() as transport:
        try:
            entries = keystores.entries(plane, parties.organization.id)
            remove_own(transport, destination, migration_id, entries, plane.settings.in_flight)
        except KeystoreError:
            cleaned = False
        finally:
            transport.run_one(destination.revoke())
    with plane.transaction() as session:
        migrations.give_up(session, migration_id, ending, detail, cleaned=cleaned)
    _log.warning("migration failed", migration=migration_id, ending=ending.value, detail=detail, cleaned=cleaned)


@_step("clean up")
def _clean_up(migration_id: str) -> None:
    plane, clean_ups = _context()
    try:
        clean_ups.of_migration(migration_id)
    finally:
        # Decided it is already; what is left is worked on in the background.
        _note(plane, migration_id, phase="ended")


def _context() -> tuple[ControlPlane, CleanUps]:
    if _plane is None or _clean_ups is None:
        raise RuntimeError("the migration workflow is not configured")
    return _plane, _clean_ups


def _load(plane: ControlPlane, migration_id: str) -> migrations.Parties:
    with plane.transaction() as session:
        return migrations.load(session, migration_id)


def _note(plane: ControlPlane, migration_id: str, **values: Any) -> None:
    """Write progress for people to see; nothing is decided by it."""
    with plane.transaction() as session:
        session.execute(update(Migration).where(Migration.id == migration_id).values(**values))


def _source(plane: ControlPlane, parties: migrations.Parties, shard: list[Entry]) -> Source:
    if parties.source.kind != "legacy":
        return VaultSource(plane.vault(parties.organization, parties.source, retry_for_s=plane.settings.retry_s))
    rows: dict[str, list[bytes | None]] = {entry.user: [] for entry in shard}
    with plane.transaction() as session:
        query = select(LegacyKey.user, LegacyKey.key_sealed).where(
            LegacyKey.organization_id == parties.organization.id, LegacyKey.user.in_(rows)
        )
        for user, sealed in session.execute(query):
            rows[user].append(sealed)
    return _LegacySource(plane, parties.organization.id, parties.organization.name, rows)


class _LegacySource:
    """One shard of a legacy keystore's rows."""

    def __init__(
        self, plane: ControlPlane, organization_id: int, organization: str, rows: dict[str, list[bytes | None]]
    ) -> None:
        self._unseal = legacy_unseal(plane, organization_id)
        self._organization = organization
        self._rows = rows

    def read_entry(self, entry: Entry) -> Flow[ArchiveKey | None]:
        yield from ()
        return read_rows(self._organization, entry.user, entry.generation, self._rows[entry.user], self._unseal)

    def close(self) -> Flow[None]:
        yield from ()
