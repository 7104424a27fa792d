"""Removing what a migration leaves on its losing side, again and again until it is gone or somebody gives it up."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from datetime import timedelta

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pulumi_keystore import failpoints
from pulumi_keystore.answers import CleanUpAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, fencing, opening
from pulumi_keystore.control_plane.keystores.removal import Tally
from pulumi_keystore.control_plane.keystores.tables import CleanUp, CleanUpState, Side
from pulumi_keystore.control_plane.organizations import history, keystores, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.background import Turns, isolated
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import is_due
from pulumi_keystore.counting import count
from pulumi_keystore.errors import Conflict, InvalidInput, KeystoreError, NotFound
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.transport import Transport

_LONGEST_REASON = 300
_AT_A_TIME = 16
_LONGEST_S = 1800.0
"""How long one attempt may take: a million keys take a third of it, and the next attempt goes on from there."""
_log = structlog.get_logger(__name__)


def new(
    migration_id: str, keystore: Keystore, side: Side, *, state: CleanUpState = CleanUpState.PENDING, wait_s: float = 0
) -> CleanUp:
    """Return a clean-up of the place where a keystore's keys lie now."""
    return CleanUp(
        migration_id=migration_id,
        keystore_id=keystore.id,
        cluster_id=keystore.cluster_id,
        path=keystore.path,
        side=side,
        state=state,
        attempts=0,
        created_at=now_utc(),
        next_at=now_utc() + timedelta(seconds=wait_s),
    )


def pending_at(session: Session, keystore_id: int) -> list[CleanUp]:
    """Return what still has to be removed from a keystore, oldest first."""
    mine = (CleanUp.keystore_id == keystore_id, CleanUp.state == CleanUpState.PENDING, CleanUp.side != Side.PROOF)
    return list(session.scalars(select(CleanUp).where(*mine).order_by(CleanUp.id)))


def require_none(session: Session, keystore: Keystore) -> None:
    """Raise where something still has to be removed from a keystore.

    Raises:
        Conflict: A clean-up is pending; the hint names the ways out.

    """
    if found := pending_at(session, keystore.id):
        owner = session.get_one(Organization, keystore.organization_id)
        raise Conflict(
            f"the keystore {keystore.name!r} still holds keys that clean-up {found[0].id} has to remove",
            hint=f"see why with `keystore clean-up list {owner.name}`; then retry it, or abandon it",
        )


def list_page(
    session: Session, owner: Organization, limit: int, after: int = 0, *, ended: bool = False
) -> list[CleanUpAnswer]:
    """Return the clean-ups of an organization that are pending, or all; oldest first, those after a number."""
    mine = (Keystore.organization_id == owner.id, CleanUp.side != Side.PROOF, CleanUp.id > after)
    query = select(CleanUp).join(Keystore, Keystore.id == CleanUp.keystore_id).where(*mine)
    wanted = query if ended else query.where(CleanUp.state == CleanUpState.PENDING)
    return [describe(session, owner, row) for row in session.scalars(wanted.order_by(CleanUp.id).limit(limit))]


def describe(session: Session, owner: Organization, row: CleanUp) -> CleanUpAnswer:
    """Return what may be shown of a clean-up."""
    return {
        "id": row.id,
        "migration": row.migration_id,
        "keystore": session.get_one(Keystore, row.keystore_id).name,
        "side": row.side,
        "state": row.state,
        "place": _place(row, owner),
        "attempts": row.attempts,
        "detail": row.detail,
        "next_at": row.next_at.isoformat(),
    }


def _place(row: CleanUp, owner: Organization) -> str:
    return str(Place(row.cluster_id or "", row.path or "", owner.name))


def find(session: Session, owner: Organization, number: int) -> CleanUp:
    """Return a clean-up of an organization.

    Raises:
        NotFound: It has no such clean-up.

    """
    query = select(CleanUp).join(Keystore, Keystore.id == CleanUp.keystore_id)
    mine = (CleanUp.id == number, Keystore.organization_id == owner.id, CleanUp.side != Side.PROOF)
    row = session.scalar(query.where(*mine).with_for_update(of=CleanUp))
    if row is None:
        raise NotFound(
            f"the organization {owner.name!r} has no clean-up {number}",
            hint=f"list them with `keystore clean-up list {owner.name}`",
        )
    return row


def abandon(session: Session, actor: str, owner: Organization, number: int, reason: str) -> None:
    """Give a clean-up up: what lies there stays there. For a server that is gone for good, say.

    Raises:
        InvalidInput: There is no reason.
        Conflict: It is not pending.
        NotFound: There is no such clean-up.

    """
    reason = require_reason(reason)
    row = find(session, owner, number)
    if row.state != CleanUpState.PENDING:
        raise Conflict(f"clean-up {number} is {row.state}", hint=f"see `keystore clean-up list {owner.name} --all`")
    row.state, row.detail = CleanUpState.ABANDONED, reason
    keystore = session.get(Keystore, row.keystore_id)
    where = f"{keystore.name if keystore else row.side}: copies of archive keys may be left in {_place(row, owner)}"
    history.append(session, owner.id, actor, "Clean-up abandoned", f"{where}; reason: {reason}")


def require_reason(reason: str) -> str:
    """Return a reason as history takes it.

    Raises:
        InvalidInput: There is none, or it is too long.

    """
    text = " ".join(reason.split())
    if not text or len(text) > _LONGEST_REASON or not text.isprintable():
        raise InvalidInput(
            "reason: it is missing, or not one line of text",
            hint=f"say in up to {_LONGEST_REASON} characters why; history keeps it",
            prop="reason",
        )
    return text


class CleanUps:
    """Works through the clean-ups that are pending.

    One attempt at a time works on a keystore: a migration that is about to write to it waits for an attempt under
    way, and finds nothing pending afterwards.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._turns = Turns("clean-ups", _AT_A_TIME)
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def work(self) -> None:
        """Try each clean-up that is due once."""
        longest_s = max(self._plane.settings.cleanup_retry_s, self._plane.settings.retain_s)
        with self._plane.transaction() as session:
            due_now = is_due(CleanUp.next_at, now_utc(), longest_s)
            query = select(Keystore.organization_id, CleanUp.id, CleanUp.keystore_id)
            query = query.select_from(CleanUp).outerjoin(Keystore, Keystore.id == CleanUp.keystore_id)
            query = query.where(CleanUp.state == CleanUpState.PENDING, due_now).order_by(CleanUp.id)
            due = [(owner, (number, keystore)) for owner, number, keystore in session.execute(query)]

        def attempt(one: tuple[int, int]) -> None:
            number, keystore_id = one
            with isolated("clean-up", clean_up=number), self._locks[keystore_id]:
                self._attempt(number)

        self._turns.take(due, attempt)

    def release(self, number: int) -> None:
        """Have a reserved clean-up done: who reserved it writes there no more."""
        with self._plane.transaction() as session:
            session.execute(update(CleanUp).where(CleanUp.id == number).values(state=CleanUpState.PENDING))

    def release_all(self) -> None:
        """Have every reserved clean-up done: those who reserved them were other processes, and are gone."""
        with self._plane.transaction() as session:
            session.execute(
                update(CleanUp).where(CleanUp.state == CleanUpState.RESERVED).values(state=CleanUpState.PENDING)
            )

    def of_migration(self, migration_id: str) -> None:
        """Try the clean-ups of one migration that are due now."""
        with self._plane.transaction() as session:
            query = select(CleanUp.id, CleanUp.keystore_id).where(
                CleanUp.migration_id == migration_id, CleanUp.next_at <= now_utc()
            )
            found = session.execute(query.order_by(CleanUp.id)).all()
        for number, keystore_id in found:
            with self._locks[keystore_id]:
                self._attempt(number)

    def retry(self, number: int) -> None:
        """Try one clean-up now, whenever it is due.

        Raises:
            KeystoreError: It cannot be done.

        """
        with self._plane.transaction() as session:
            keystore_id = session.get_one(CleanUp, number).keystore_id
        with self._locks[keystore_id]:
            if fault := self._attempt(number):
                raise fault

    def finish(self, keystore_id: int) -> None:
        """Do every clean-up of a keystore now.

        Raises:
            KeystoreError: One cannot be done.

        """
        with self._locks[keystore_id]:
            with self._plane.transaction() as session:
                numbers = [row.id for row in pending_at(session, keystore_id)]
            for number in numbers:
                if fault := self._attempt(number):
                    raise fault

    def _attempt(self, number: int) -> KeystoreError | None:
        """Try one clean-up and record the outcome; the keystore's lock is held."""
        with self._plane.transaction() as session:
            row = session.get(CleanUp, number)
            if row is None or row.state != CleanUpState.PENDING:
                return None
            keystore = session.get(Keystore, row.keystore_id)
            owner = session.get_one(Organization, keystore.organization_id) if keystore else None
            active = keystores.active_keystore(session, owner) if owner else None
        in_use = keystore is not None and active is not None and active.id == keystore.id
        if keystore is None or owner is None or (in_use and row.side != Side.PROOF):
            self._drop(number)
            return None
        fault: KeystoreError | None = None
        tally = Tally()
        until = time.monotonic() + _LONGEST_S
        with Transport() as transport:
            vault = self._vault(owner, keystore, row, until)
            try:
                registry.require_known(owner)
                tally = self._remove(transport, vault, row, owner, active, until)
                failpoints.reach("clean-up.removed")
            except KeystoreError as raised:
                fault = raised
            finally:
                transport.run_one(vault.revoke())
        self._record(number, fault, tally)
        return fault

    def _drop(self, number: int) -> None:
        """End a clean-up of a keystore that has become the active one again, whose keys are in use, or is gone."""
        with self._plane.transaction() as session:
            row = session.get_one(CleanUp, number, with_for_update=True)
            row.state, row.detail = CleanUpState.DONE, "nothing was removed: it is the active keystore again"
            keystore = session.get(Keystore, row.keystore_id)
            if keystore is not None:
                history.append(session, keystore.organization_id, history.SYSTEM, "Clean-up dropped", row.detail)

    def _vault(self, owner: Organization, keystore: Keystore, row: CleanUp, until: float) -> VaultKeystore:
        """Return the place that the clean-up is of, by way of what the keystore is reached with today."""
        return opening.vault_of(
            self._plane,
            owner,
            keystore,
            retry_for_s=min(self._plane.settings.retry_s, opening.PATIENCE_S),
            announce=fencing.for_leader(self._plane, keystore),
            path=row.path,
            cluster_id=row.cluster_id,
            until=until,
        )

    def _remove(
        self,
        transport: Transport,
        vault: VaultKeystore,
        row: CleanUp,
        owner: Organization,
        active: Keystore | None,
        until: float,
    ) -> Tally:
        if row.side == Side.PROOF:
            transport.run_one(vault.remove_canaries(row.migration_id))
            return Tally()
        if active is None:
            raise Conflict(f"the organization {owner.name!r} has no active keystore to compare with")
        plane = self._plane
        # Whoever worked here before, and was replaced, can neither write nor delete from now on.
        fencing.fence(plane, transport, vault, owner.id)
        with opening.witness(plane, transport, owner, active, until) as witness:
            removal = opening.removal(plane, transport, owner, vault, witness)
            if witness.vault is not None:
                # Before anything is deleted both sides know of the decision that makes it right.
                checkpoints.leave(plane, transport, witness.vault, owner.id, active=True)
                checkpoints.leave(plane, transport, vault, owner.id, active=False)
            return removal.all_keys() if row.side == Side.SOURCE else removal.own(row.migration_id)

    def _record(self, number: int, fault: KeystoreError | None, tally: Tally) -> None:
        with self._plane.transaction() as session:
            row = session.get_one(CleanUp, number, with_for_update=True)
            if row.state != CleanUpState.PENDING:
                return
            keystore = session.get(Keystore, row.keystore_id)
            owner = session.get_one(Organization, keystore.organization_id) if keystore else None
            row.attempts += 1
            row.next_at = now_utc() + timedelta(seconds=self._plane.settings.cleanup_retry_s)
            if fault is None and tally.kept and owner is not None:
                fault = _kept(owner, tally)
            row.detail = str(fault) if fault else None
            if fault is None:
                row.state = CleanUpState.DONE
            if keystore is not None and owner is not None and row.side != Side.PROOF:
                _tell(session, row, keystore, owner, fault, tally)
        _log.info("clean-up", clean_up=number, side=row.side, attempt=row.attempts, done=fault is None)


def _kept(owner: Organization, tally: Tally) -> Conflict:
    return Conflict(
        f"{count(tally.kept, 'key')} not deleted: the active keystore holds another one under the same name",
        hint=f"compare with `keystore verify {owner.name}`; then retry this clean-up, or abandon it",
    )


def _tell(
    session: Session, row: CleanUp, keystore: Keystore, owner: Organization, fault: KeystoreError | None, tally: Tally
) -> None:
    """Write down in the history what a clean-up came to, where that is worth it."""
    where = f"{row.side} {keystore.name} ({keystore.address}, {_place(row, owner)})"
    if fault is not None:
        if row.attempts == 1 and row.side == Side.SOURCE:
            detail = f"{where} still holds keys; tried again until they are gone: {fault}"
            history.append(session, owner.id, history.SYSTEM, "Clean-up pending", detail)
        return
    if tally.foreign and row.side == Side.SOURCE:
        where += f"; {count(tally.foreign, 'entry')} that are no archive keys: left there"
    if tally.foreign or row.attempts > 1 or row.side == Side.DESTINATION:
        history.append(session, owner.id, history.SYSTEM, "Clean-up finished", where)
