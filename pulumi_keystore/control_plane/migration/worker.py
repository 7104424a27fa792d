"""Working through shards: copying keys, or reading them back, one shard after another, several organizations at a time.

Any number of processes do this against one database: the service itself, and `keystore worker` on further machines.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore import failpoints
from pulumi_keystore.control_plane.migration import shards
from pulumi_keystore.control_plane.migration.lease import Lease
from pulumi_keystore.control_plane.runtime import background, leadership
from pulumi_keystore.control_plane.runtime.background import Work
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.errors import KeystoreError

_LOOK_S: Final = 0.25
_IDLE_S: Final = 1.0
_MOST_LEASES: Final = 4
_log = structlog.get_logger(__name__)


class Workers:
    """The threads of one process that work through shards, each on one organization at a time.

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
        """Set whenever a shard has ended here."""

    def start(self) -> None:
        """Start the threads; they end with the process."""
        if not self._slots:
            return
        for number, wake in enumerate(self._wakes, 1):
            threading.Thread(target=self._slot, args=(wake,), name=f"worker-{number}", daemon=True).start()
        background.start([Work("shards", _LOOK_S, self._look)])

    def wake(self) -> None:
        """Say that there are new shards; the threads find out by themselves a little later."""
        for event in self._wakes:
            event.set()

    def _look(self) -> None:
        """Look for free shards, for all threads."""
        if shards.any_free(self._plane, self._busy):
            self.wake()

    def _slot(self, wake: threading.Event) -> None:
        leases: OrderedDict[str, Lease] = OrderedDict()
        while True:
            if not wake.wait(_IDLE_S):
                # Nothing to do: the tokens are given back, and nothing is asked until there is.
                _close_all(leases)
                wake.wait()
            wake.clear()
            try:
                while self._work_once(leases):
                    pass
            except (SQLAlchemyError, KeystoreError) as error:
                # What was held is given to somebody else by the supervisor; the token is ended then, too.
                _log.warning("worker interrupted; goes on", error=type(error).__name__)
                _close_all(leases)
            except BaseException:  # noqa: BLE001 - a migration that always fails stalls, and is rolled back; others go on
                _log.exception("worker interrupted by a mistake in the program; goes on")
                _close_all(leases)

    def _work_once(self, leases: OrderedDict[str, Lease]) -> bool:
        """Do one shard if there is one; return whether there was."""
        with self._lock:
            holders = {migration: lease.holder for migration, lease in leases.items()}
            claimed = shards.claim(self._plane, holders, leadership.new_name(self._plane.instance), self._busy)
            if claimed is None:
                return False
            task, holder = claimed
            self._busy.add(task.migration_id)
        try:
            failpoints.reach("shard.claimed")
            lease = leases.pop(task.migration_id, None) or Lease(self._plane, task.migration_id, holder)
            leases[task.migration_id] = lease
            if not lease.work(task):
                _close(leases.pop(task.migration_id))
            while len(leases) > _MOST_LEASES:
                _close(leases.popitem(last=False)[1])
        finally:
            with self._lock:
                self._busy.discard(task.migration_id)
            self.progress.set()
        return True


def _close_all(leases: OrderedDict[str, Lease]) -> None:
    while leases:
        _close(leases.popitem()[1])


def _close(lease: Lease) -> None:
    try:
        lease.close()
    except (SQLAlchemyError, KeystoreError):
        return
    except Exception:  # noqa: BLE001 - the thread that closes it has other work
        _log.exception("a shard's lease cannot be closed by a mistake in the program")
