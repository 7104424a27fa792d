"""One migration in one worker: its connections, its shard, and the sign that it lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore import failpoints
from pulumi_keystore.control_plane.keystores import fencing, opening
from pulumi_keystore.control_plane.migration import parties, shards
from pulumi_keystore.control_plane.migration.copy import Copier, Source, VaultSource
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.control_plane.migration.inventory import Inventory
from pulumi_keystore.control_plane.migration.shards import Task
from pulumi_keystore.control_plane.migration.tables import Work
from pulumi_keystore.control_plane.organizations import ledger, legacy
from pulumi_keystore.control_plane.organizations.legacy import read_rows
from pulumi_keystore.control_plane.organizations.tables import LegacyKey
from pulumi_keystore.control_plane.runtime.leadership import Superseded
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.vault.record import ArchiveKey, Entry
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.transport import Transport

_HEARTBEAT_S: Final = 1.0
_log = structlog.get_logger(__name__)


class Lease:
    """One worker's logged-in connections to both ends of one migration, kept from shard to shard."""

    def __init__(self, plane: ControlPlane, migration_id: str, holder: str) -> None:
        self.holder = holder
        self._plane = plane
        with plane.transaction() as session:
            self._parties = parties.load(session, migration_id)
        owner, retry_s = self._parties.organization, plane.settings.retry_s
        self._transport = Transport()
        announce = shards.for_holder(plane, self._parties.destination, holder)
        self._destination = opening.vault_of(
            plane, owner, self._parties.destination, retry_for_s=retry_s, announce=announce
        )
        legacy = self._parties.source.kind == Kind.LEGACY
        self._source = None if legacy else opening.vault_of(plane, owner, self._parties.source, retry_for_s=retry_s)
        self._work = Work.COPY

    def work(self, task: Task) -> bool:
        """Do one shard and write its outcome down; return whether the lease is still good."""
        try:
            inventory, annotated = self._move(task)
            failpoints.reach("shard.copied" if task.work == Work.COPY else "shard.verified")
            shards.finish(self._plane, task, self.holder, inventory, annotated)
        except MigrationFailed as failure:
            with suppress(Superseded):
                shards.fail(self._plane, task, self.holder, failure.ending, failure.detail)
            return False
        except Superseded as reason:
            _log.info("shard given up", migration=task.migration_id, shard=task.id, reason=str(reason))
            return False
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the migration must end
            _log.exception("shard failed", migration=task.migration_id, shard=task.id)
            detail = f"internal error ({type(error).__name__}); see the worker's log"
            with suppress(Superseded):
                shards.fail(self._plane, task, self.holder, Ending.STALLED, detail)
            return False
        failpoints.reach("shard.recorded")
        return True

    def _move(self, task: Task) -> tuple[Inventory, int]:
        plane, organization = self._plane, self._parties.organization
        entries = ledger.entries(plane, organization.id, task.after, task.upto, without_late_of=task.migration_id)
        if task.work == Work.VERIFY and self._work == Work.COPY:
            # What is read from now on must not be older than the end of the copy.
            self._work = Work.VERIFY
            self._destination.login_anew()
        source: Source
        if self._source is not None:
            source = VaultSource(self._source)
        else:
            found = list(entries)
            entries = iter(found)
            source = _LegacyRows(plane, organization.id, organization.name, found if task.work == Work.COPY else [])
        copier = Copier(source, self._destination, task.migration_id, plane.master_key.fingerprint)
        move = copier.copy if task.work == Work.COPY else copier.verify
        inventory, heartbeat = (
            Inventory(),
            _Heartbeat(lambda: shards.heartbeat(plane, task, self.holder, inventory.count)),
        )
        annotated = self._source.annotated if self._source else 0
        for fingerprint in self._transport.run(map(move, entries), plane.settings.in_flight, heartbeat):
            if fingerprint is not None:
                inventory.add(fingerprint)
        return inventory, (self._source.annotated if self._source else 0) - annotated

    def close(self) -> None:
        """End the tokens and the connections.

        Raises:
            KeystoreFault: The destination does not answer; its tokens stay written down for somebody else to end.

        """
        try:
            if self._source is not None:
                self._transport.run_one(self._source.revoke())
            organization = self._parties.organization.id
            fencing.fence(self._plane, self._transport, self._destination, organization, holder=self.holder)
        finally:
            self._transport.close()


class _Heartbeat:
    """Calls something at most once a second."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._next = time.monotonic() + _HEARTBEAT_S

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._call()
            self._next = time.monotonic() + _HEARTBEAT_S


class _LegacyRows:
    """The rows of a legacy keystore that one shard needs."""

    def __init__(self, plane: ControlPlane, organization_id: int, organization: str, entries: list[Entry]) -> None:
        self._unseal = legacy.legacy_unseal(plane, organization_id)
        self._organization = organization
        self._rows: dict[str, list[bytes | None]] = {entry.user: [] for entry in entries}
        with plane.transaction() as session:
            query = select(LegacyKey.user, LegacyKey.key_sealed).where(
                LegacyKey.organization_id == organization_id, LegacyKey.user.in_(self._rows)
            )
            for user, sealed in session.execute(query):
                self._rows[user].append(sealed)

    def read_entry(self, entry: Entry) -> Flow[ArchiveKey | None]:
        """Return the key of an entry."""
        yield from ()
        return read_rows(self._organization, entry.user, entry.generation, self._rows[entry.user], self._unseal)
