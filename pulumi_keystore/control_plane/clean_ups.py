"""Removing what a migration leaves on its losing side, again and again until it is gone."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import timedelta

import structlog
from sqlalchemy import select, update

from pulumi_keystore import failpoints
from pulumi_keystore.certificate import now_utc
from pulumi_keystore.control_plane import grants, history, keystores
from pulumi_keystore.control_plane.models import CleanUp, Keystore, Organization, is_due
from pulumi_keystore.control_plane.plane import ControlPlane
from pulumi_keystore.errors import KeystoreFault
from pulumi_keystore.keystores.transport import Transport
from pulumi_keystore.migration.copy import remove_all, remove_own

_log = structlog.get_logger(__name__)


class CleanUps:
    """Works through the clean-ups that are pending.

    One attempt at a time works on a keystore: a migration that is about to write to it waits for an attempt under
    way, and finds nothing pending afterwards.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def work(self) -> None:
        """Try each clean-up that is due once."""
        with self._plane.transaction() as session:
            due_now = is_due(CleanUp.next_at, now_utc(), self._plane.settings.cleanup_retry_s)
            query = select(CleanUp.id, CleanUp.keystore_id).where(CleanUp.state == "pending", due_now)
            due = session.execute(query.order_by(CleanUp.id)).all()
        for number, keystore_id in due:
            with self._locks[keystore_id]:
                self._attempt(number)

    def release(self, number: int) -> None:
        """Have a reserved clean-up done: who reserved it writes there no more."""
        with self._plane.transaction() as session:
            session.execute(update(CleanUp).where(CleanUp.id == number).values(state="pending"))

    def release_all(self) -> None:
        """Have every reserved clean-up done: those who reserved them were other processes, and are gone."""
        with self._plane.transaction() as session:
            session.execute(update(CleanUp).where(CleanUp.state == "reserved").values(state="pending"))

    def of_migration(self, migration_id: str) -> None:
        """Try the clean-ups of one migration now."""
        with self._plane.transaction() as session:
            query = select(CleanUp.id, CleanUp.keystore_id).where(CleanUp.migration_id == migration_id)
            found = session.execute(query.order_by(CleanUp.id)).all()
        for number, keystore_id in found:
            with self._locks[keystore_id]:
                self._attempt(number)

    def finish(self, keystore_id: int) -> None:
        """Do every clean-up of a keystore now.

        Raises:
            KeystoreFault: One cannot be done.

        """
        with self._locks[keystore_id]:
            with self._plane.transaction() as session:
                numbers = [row.id for row in keystores.pending_clean_ups(session, keystore_id)]
            for number in numbers:
                if fault := self._attempt(number):
                    raise fault

    def _attempt(self, number: int) -> KeystoreFault | None:
        """Try one clean-up and record the outcome; the keystore's lock is held."""
        with self._plane.transaction() as session:
            row = session.get(CleanUp, number)
            if row is None or row.state != "pending":
                return None
            keystore = session.get(Keystore, row.keystore_id)
            owner = session.get_one(Organization, keystore.organization_id) if keystore else None
        if keystore is None or owner is None or (owner.active_keystore_id == keystore.id and row.side == "source"):
            self._record(number, None)
            return None
        plane, in_flight = self._plane, self._plane.settings.in_flight
        vault = plane.vault(owner, keystore, announce=grants.for_leader(plane, keystore.id))
        fault: KeystoreFault | None = None
        others = 0
        with Transport() as transport:
            try:
                if row.side != "proof":
                    # Whoever worked here before, and was replaced, can neither write nor delete from now on.
                    grants.fence(plane, transport, vault, keystore.id)
                if row.side == "source":
                    others = remove_all(transport, vault, lambda: keystores.entries(plane, owner.id), in_flight)
                else:
                    remove_own(transport, vault, row.migration_id, in_flight)
                failpoints.reach("clean-up.removed")
            except KeystoreFault as raised:
                fault = raised
            finally:
                transport.run_one(vault.revoke())
        self._record(number, fault, others)
        return fault

    def _record(self, number: int, fault: KeystoreFault | None, others: int = 0) -> None:
        with self._plane.transaction() as session:
            row = session.get_one(CleanUp, number, with_for_update=True)
            keystore = session.get(Keystore, row.keystore_id)
            row.attempts += 1
            row.detail = str(fault) if fault else None
            row.next_at = now_utc() + timedelta(seconds=self._plane.settings.cleanup_retry_s)
            if row.side == "proof":
                # A canary at the most, of a migration that never began: nothing that history is about.
                row.state = "pending" if fault else "done"
                return
            where = f"{row.side} {keystore.name} ({keystore.address})" if keystore else row.side
            if fault is None:
                row.state = "done"
                if others:
                    where += f"; {others:,} entries that are no archive key in escrow are left there"
                if keystore and (others or row.attempts > 1 or row.side == "destination"):
                    history.append(session, keystore.organization_id, history.SYSTEM, "Clean-up finished", where)
            elif keystore and row.attempts == 1 and row.side == "source":
                detail = f"{where} still holds keys; tried again until they are gone: {fault}"
                history.append(session, keystore.organization_id, history.SYSTEM, "Clean-up pending", detail)
        _log.info("clean-up", clean_up=number, side=row.side, attempt=row.attempts, done=fault is None)
