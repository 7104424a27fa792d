"""Working through shares: copying keys, or reading them back, one share after another, several organizations at a time.

Any number of processes do this against one database: the service itself, and `keystore worker` on further machines.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore import failpoints
from pulumi_keystore.control_plane.keystores import fencing
from pulumi_keystore.control_plane.migration import lifecycle, shards
from pulumi_keystore.control_plane.migration.copy import Copier, Source, VaultSource
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.control_plane.migration.inventory import Inventory
from pulumi_keystore.control_plane.migration.shards import Task
from pulumi_keystore.control_plane.organizations import ledger, legacy
from pulumi_keystore.control_plane.organizations.legacy import read_rows
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.leadership import Superseded
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import LegacyKey
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault.record import ArchiveKey, Entry
from pulumi_keystore.vault.transport import Flow, Transport

_BEAT_S: Final = 1.0
_LOOK_S: Final = 0.25
_IDLE_S: Final = 1.0
_MOST_SESSIONS: Final = 4
_log = structlog.get_logger(__name__)


class Workers:
    """The threads of one process that work through shares, each on one organization at a time.

    Args:
        plane: Database, master key and resolver.
        slots: How many threads.

    """

    def __init__(self, plane: ControlPlane, slots: int) -> None:
        self._plane = plane
        self._slots = slots
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._wakes = [threading.Event() for _ in range(slots)]
        self.progress = threading.Event()
        """Set whenever a share has ended here."""

    def start(self) -> None:
        """Start the threads; they end with the process."""
        if not self._slots:
            return
        for number, wake in enumerate(self._wakes, 1):
            threading.Thread(target=self._slot, args=(wake,), name=f"worker-{number}", daemon=True).start()
        threading.Thread(target=self._scout, name="scout", daemon=True).start()

    def wake(self) -> None:
        """Say that there are new shares; the threads find out by themselves a little later."""
        for event in self._wakes:
            event.set()

    def _scout(self) -> None:
        """Look for free shares, for all threads."""
        while True:
            try:
                if shards.any_free(self._plane, self._busy):
                    self.wake()
            except SQLAlchemyError as error:
                _log.warning("the database does not answer; tried again", error=type(error).__name__)
            time.sleep(_LOOK_S)

    def _slot(self, wake: threading.Event) -> None:
        sessions: OrderedDict[str, Session] = OrderedDict()
        while True:
            if not wake.wait(_IDLE_S):
                # Nothing to do: the tokens are given back, and nothing is asked until there is.
                _close_all(sessions)
                wake.wait()
            wake.clear()
            try:
                while self._work_once(sessions):
                    pass
            except (SQLAlchemyError, KeystoreError) as error:
                # What was held is given to somebody else by the supervisor; the token is ended then, too.
                _log.warning("worker interrupted; goes on", error=type(error).__name__)
                _close_all(sessions)

    def _work_once(self, sessions: OrderedDict[str, Session]) -> bool:
        """Do one share if there is one; return whether there was."""
        with self._lock:
            holders = {migration: session.holder for migration, session in sessions.items()}
            claimed = shards.claim(self._plane, holders, leadership.new_name(self._plane.instance), self._busy)
            if claimed is None:
                return False
            task, holder = claimed
            self._busy.add(task.migration_id)
        try:
            failpoints.reach("share.claimed")
            session = sessions.pop(task.migration_id, None) or Session(self._plane, task.migration_id, holder)
            sessions[task.migration_id] = session
            if not session.work(task):
                _close(sessions.pop(task.migration_id))
            while len(sessions) > _MOST_SESSIONS:
                _close(sessions.popitem(last=False)[1])
        finally:
            with self._lock:
                self._busy.discard(task.migration_id)
            self.progress.set()
        return True


def _close_all(sessions: OrderedDict[str, Session]) -> None:
    while sessions:
        _close(sessions.popitem()[1])


def _close(session: Session) -> None:
    with suppress(SQLAlchemyError, KeystoreError):
        session.close()


class Session:
    """One worker's logged-in connections to both ends of one migration, kept from share to share."""

    def __init__(self, plane: ControlPlane, migration_id: str, holder: str) -> None:
        self.holder = holder
        self._plane = plane
        with plane.transaction() as session:
            self._parties = lifecycle.load(session, migration_id)
        owner, retry_s = self._parties.organization, plane.settings.retry_s
        self._transport = Transport()
        announce = fencing.for_holder(plane, self._parties.destination, holder)
        self._destination = plane.vault(owner, self._parties.destination, retry_for_s=retry_s, announce=announce)
        legacy = self._parties.source.kind == "legacy"
        self._source = None if legacy else plane.vault(owner, self._parties.source, retry_for_s=retry_s)
        self._work = shards.COPY

    def work(self, task: Task) -> bool:
        """Do one share and write its outcome down; return whether the session is still good."""
        try:
            inventory, annotated = self._move(task)
            failpoints.reach("share.copied" if task.work == shards.COPY else "share.verified")
            shards.finish(self._plane, task, self.holder, inventory, annotated)
        except MigrationFailed as failure:
            with suppress(Superseded):
                shards.fail(self._plane, task, self.holder, failure.ending, failure.detail)
            return False
        except Superseded as reason:
            _log.info("share given up", migration=task.migration_id, share=task.id, reason=str(reason))
            return False
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the migration must end
            _log.exception("share failed", migration=task.migration_id, share=task.id)
            detail = f"internal error ({type(error).__name__}); see the worker's log"
            with suppress(Superseded):
                shards.fail(self._plane, task, self.holder, Ending.STALLED, detail)
            return False
        failpoints.reach("share.recorded")
        return True

    def _move(self, task: Task) -> tuple[Inventory, int]:
        plane, organization = self._plane, self._parties.organization
        entries = ledger.entries(plane, organization.id, task.after, task.upto, without_late_of=task.migration_id)
        if task.work == shards.VERIFY and self._work == shards.COPY:
            # What is read from now on must not be older than the end of the copy.
            self._work = shards.VERIFY
            self._destination.login_anew()
        source: Source
        if self._source is not None:
            source = VaultSource(self._source)
        else:
            found = list(entries)
            entries = iter(found)
            source = _LegacyRows(plane, organization.id, organization.name, found if task.work == shards.COPY else [])
        copier = Copier(source, self._destination, task.migration_id, plane.master_key.fingerprint)
        move = copier.copy if task.work == shards.COPY else copier.verify
        inventory, beat = Inventory(), _Beat(lambda: shards.beat(plane, task, self.holder, inventory.count))
        annotated = self._source.annotated if self._source else 0
        for fingerprint in self._transport.run(map(move, entries), plane.settings.in_flight, beat):
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


class _Beat:
    """Calls something at most once a second."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._next = time.monotonic() + _BEAT_S

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._call()
            self._next = time.monotonic() + _BEAT_S


class _LegacyRows:
    """The rows of a legacy keystore that one share needs."""

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
