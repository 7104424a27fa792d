"""Watching over the workers: which holder of a shard is lost and replaced, and whether the whole has stalled.

Everything is measured by one monotonic clock in one process, never by comparing the clocks of machines: a holder is
lost when the number of its heartbeats has not changed for a while that the judge has measured itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from sqlalchemy import select, update

from pulumi_keystore.control_plane.keystores import fencing, opening
from pulumi_keystore.control_plane.migration import lifecycle, parties, shards
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.control_plane.migration.tables import Migration, Work
from pulumi_keystore.control_plane.migration.worker import Workers
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.errors import KeystoreFault
from pulumi_keystore.vault.transport import Transport

_LOOK_S: Final = 0.25
_log = structlog.get_logger(__name__)

Outcome = list[str] | None
"""Ending and detail of a failure, as recorded by DBOS; None for "go on"."""


class StallWatch:
    """Raises once no key has moved for a window of monotonic time, however the wall clock jumps."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._last = clock()
        self._keys = -1

    def observe(self, keys: int) -> None:
        """Note how many keys have moved.

        Raises:
            MigrationFailed: Stalled; it was the same number for the whole window.

        """
        now = self._clock()
        # More than ever before: work that is lost and done again is no progress.
        if keys > self._keys:
            self._keys, self._last = keys, now
        elif now - self._last > self._window_s:
            raise MigrationFailed(Ending.STALLED, f"no archive key moved for {self._window_s:g} s")


class LeaseWatch:
    """Tells which holders have not shown a sign of life for a while."""

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[int, tuple[str, int, float]] = {}

    def lost(self, held: Iterable[tuple[int, str, int]]) -> set[str]:
        """Return the holders that are lost, from (shard, holder, heartbeats) of everything that is held now."""
        now, seen = self._clock(), {}
        lost = set()
        for shard, holder, heartbeats in held:
            before = self._seen.get(shard)
            since = before[2] if before is not None and before[:2] == (holder, heartbeats) else now
            seen[shard] = (holder, heartbeats, since)
            if now - since > self._lease_s:
                lost.add(holder)
        self._seen = seen
        return lost


def watch_over(plane: ControlPlane, workers: Workers, migration_id: str, work: Work) -> Outcome:
    """Wait until all shards are done; free those of workers that are lost, and see to it that keys move.

    Returns what the migration fails with, None if all is done.
    """
    stall, leases = StallWatch(plane.settings.stall_s), LeaseWatch(plane.settings.lease_s)
    column = Migration.done if work == Work.COPY else Migration.verified
    waiting: dict[str, float] = {}
    while True:
        workers.progress.clear()
        with plane.transaction() as session:
            leadership.require_lead(session, plane)
            found = shards.progress(session, migration_id, work)
            cancel_by, told = session.execute(
                select(Migration.cancel_by, column).where(Migration.id == migration_id)
            ).one()
            if told != found.keys:
                session.execute(update(Migration).where(Migration.id == migration_id).values({column: found.keys}))
        if found.failure is not None:
            return list(found.failure)
        if cancel_by is not None:
            return [Ending.STALLED.value, lifecycle.canceled(cancel_by)]
        if found.finished == found.shards:
            return None
        lost = leases.lost((shard.id, shard.holder, shard.heartbeats) for shard in found.leased)
        for holder in {*lost, *found.fenced}:
            fault = _replace(plane, workers, migration_id, holder)
            since = waiting.setdefault(holder, time.monotonic())
            if fault is None:
                del waiting[holder]
            elif time.monotonic() - since >= plane.settings.retry_s:
                # There may be no other shard by which anybody would find out.
                return [Ending.DESTINATION_NOT_REACHABLE.value, str(fault)]
        try:
            stall.observe(found.keys)
        except MigrationFailed as stalled:
            return [stalled.ending.value, stalled.detail]
        workers.progress.wait(_LOOK_S)


def _replace(plane: ControlPlane, workers: Workers, migration_id: str, holder: str) -> KeystoreFault | None:
    """Give the shards of a lost worker to others, after ending its tokens; return why that cannot be done now."""
    with plane.transaction() as session:
        leadership.require_lead(session, plane)
        ends = parties.load(session, migration_id)
        shards.take_away(session, migration_id, holder)
    destination = opening.vault_of(plane, ends.organization, ends.destination)
    try:
        with Transport() as transport:
            fencing.fence(plane, transport, destination, ends.organization.id, holder=holder)
    except KeystoreFault as fault:
        _log.warning("a lost worker's token cannot be ended yet", migration=migration_id, reason=str(fault))
        return fault
    with plane.transaction() as session:
        shards.give_back(session, migration_id, holder)
    _log.info("shards of a lost worker are free again", migration=migration_id, worker=holder)
    workers.wake()
    return None
