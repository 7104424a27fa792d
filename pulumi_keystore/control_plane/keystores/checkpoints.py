"""Whether this database is the one that the keystores remember (contract: Safety; `vault.checkpoint`).

Every decision about an organization (a migration, a change of keystore, keys that were enrolled) raises its epoch, and
the epoch is left at the active keystore. A keystore that remembers a later one has been used by a newer database, or
by another service: the organization is suspended then, and nothing of it is changed or deleted until an administrator
has recovered it (`recovery`).
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Final

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import fencing, messages, opening, telling
from pulumi_keystore.control_plane.organizations import history, keystores, ledger, registry
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Organization
from pulumi_keystore.control_plane.runtime.background import Turns, isolated
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import KeystoreError, KeystoreFault, RecoveryNeeded, Unsuitable
from pulumi_keystore.vault.checkpoint import Checkpoint, Stamp
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import DamagedRecordError
from pulumi_keystore.vault.transport import Transport

_AT_A_TIME: Final = 16
_LONGEST_S: Final = 30.0
"""How long it may take to leave one."""
_log = structlog.get_logger(__name__)


def advance(owner: Organization) -> None:
    """Raise the epoch of an organization, whose row is locked: what is decided in this transaction is a new one."""
    owner.epoch += 1
    owner.epoch_nonce = secrets.token_hex(8)


def suspend(session: Session, owner: Organization, reason: str) -> None:
    """Let nothing of an organization be changed any more; its administrators are notified once."""
    if owner.suspended is not None:
        return
    owner.suspended = reason
    history.append(session, owner.id, history.SYSTEM, "Organization suspended", reason)
    message = messages.recovery_needed(owner.name, reason)
    telling.tell_all(session, owner, f"suspended-{owner.id}-{secrets.token_hex(8)}", message)
    _log.error("organization suspended", organization=owner.name, reason=reason)


def judge(plane: ControlPlane, organization_id: int, label: str, found: Checkpoint | None) -> None:
    """Compare what a keystore remembers with this database; suspend the organization where the keystore knows more.

    The database is read here, after the keystore was: what this service itself has decided meanwhile is known.

    Raises:
        RecoveryNeeded: It knows more.

    """
    with plane.transaction() as session:
        owner = session.get_one(Organization, organization_id)
        if found is not None and Stamp(owner.epoch, owner.epoch_nonce).is_behind(found):
            session.refresh(owner, with_for_update=True)
            compare(session, owner, label, found)
    registry.require_known(owner)


def compare(session: Session, owner: Organization, label: str, found: Checkpoint) -> None:
    """Suspend an organization, whose row is locked, where a keystore remembers more than the row says."""
    if Stamp(owner.epoch, owner.epoch_nonce).is_behind(found):
        suspend(session, owner, _reason(label, found, owner))


def _reason(label: str, found: Checkpoint, owner: Organization) -> str:
    return (
        f"the keystore {label} remembers decision {found.epoch:,} of {found.at} with {found.keys:,} archive keys, and "
        f"this database knows of {owner.epoch:,}: it is an older copy, or another service works with the same keystore"
    )


def look(plane: ControlPlane, transport: Transport, vault: VaultKeystore, organization_id: int) -> None:
    """Read what a keystore remembers, and compare.

    Raises:
        RecoveryNeeded: It knows more than this database.
        KeystoreFault: It cannot be asked.

    """
    judge(plane, organization_id, str(vault), remembered(transport, vault))


def remembered(transport: Transport, vault: VaultKeystore) -> Checkpoint | None:
    """Return the latest checkpoint at a keystore.

    Raises:
        KeystoreFault: It cannot be asked, or what lies there is damaged.

    """
    try:
        return transport.run_one(vault.remembered())
    except DamagedRecordError:
        raise Unsuitable(
            f"{vault}: the latest entry below checkpoints/ of {vault.place} is damaged",
            hint="find out who wrote it, then remove that entry",
        ) from None


def leave(
    plane: ControlPlane, transport: Transport, vault: VaultKeystore, organization_id: int, *, active: bool
) -> None:
    """Make sure that a keystore remembers the latest decision; safe to repeat.

    Args:
        plane: Where the decision is written down.
        transport: What carries the requests.
        vault: The keystore.
        organization_id: Whose decision it is.
        active: Whether the keystore is the active one now.

    Raises:
        RecoveryNeeded: It knows more than this database.
        KeystoreFault: It cannot be reached, or does not take it.

    """
    for _ in range(3):
        with plane.transaction() as session:
            owner = session.get_one(Organization, organization_id, with_for_update=True)
            if not owner.epoch_nonce:
                advance(owner)  # of the version before there were any
            keys = ledger.count_keys(session, owner)
        found = remembered(transport, vault)
        judge(plane, organization_id, str(vault), found)
        if found is not None and found.epoch >= owner.epoch and found.active == active:
            return
        at = now_utc().isoformat(timespec="seconds")
        made = Checkpoint(owner.epoch, owner.epoch_nonce, owner.name, active, keys, at)
        try:
            if transport.run_one(vault.remember(made)):
                return
        except DamagedRecordError:
            raise Unsuitable(f"{vault}: what lies below checkpoints/ is damaged", hint="remove that entry") from None
        # Another one has that number: it is judged in the next round.
    raise KeystoreFault(f"{vault}: does not keep the checkpoint of a decision", hint="check the server's storage")


def offer(
    plane: ControlPlane, transport: Transport, vault: VaultKeystore, organization_id: int, *, active: bool
) -> None:
    """Leave the latest decision if the keystore lets us; a clean-up insists on it before it deletes anything."""
    try:
        leave(plane, transport, vault, organization_id, active=active)
    except KeystoreError as error:
        _log.warning("checkpoint not left", organization=organization_id, reason=error.code)


class Checkpoints:
    """Leaves checkpoints of enrolments at the active keystores, a moment after them and many at a time."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._lock = threading.Lock()
        self._turns = Turns("checkpoints", _AT_A_TIME)
        with plane.transaction() as session:
            # Those that an earlier process was killed before.
            latest = select(func.max(ArchiveKeyEntry.number)).where(ArchiveKeyEntry.organization_id == Organization.id)
            behind = select(Organization.id).where(latest.scalar_subquery() > Organization.checkpointed)
            self._due = set(session.scalars(behind))

    def note(self, organization_id: int) -> None:
        """Say that an organization's ledger has changed."""
        with self._lock:
            self._due.add(organization_id)

    def work(self) -> None:
        """Leave a checkpoint for each organization whose ledger has changed; what fails is tried again."""
        with self._lock:
            due = set(self._due)
        self._turns.take(((number, number) for number in due), self._try)

    def _try(self, organization_id: int) -> None:
        with self._lock:
            self._due.discard(organization_id)
        with isolated("checkpoint", organization=organization_id):
            try:
                self._leave(organization_id)
            except RecoveryNeeded as error:
                _log.warning("checkpoint not left", organization=organization_id, reason=error.code)
            except (KeystoreError, SQLAlchemyError) as error:
                self.note(organization_id)
                _log.warning("checkpoint not left yet", organization=organization_id, reason=type(error).__name__)

    def _leave(self, organization_id: int) -> None:
        with self._plane.transaction() as session:
            owner = session.get(Organization, organization_id, with_for_update=True)
            active = keystores.active_keystore(session, owner) if owner else None
            if owner is None or active is None or active.kind == Kind.LEGACY or owner.suspended:
                return
            advance(owner)
            covered = ledger.highest(session, organization_id)
        announce, until = fencing.for_leader(self._plane, active), time.monotonic() + _LONGEST_S
        vault = opening.vault_of(self._plane, owner, active, announce=announce, until=until)
        with Transport() as transport:
            try:
                leave(self._plane, transport, vault, organization_id, active=True)
            finally:
                transport.run_one(vault.revoke())
        with self._plane.transaction() as session:
            session.execute(update(Organization).where(Organization.id == organization_id).values(checkpointed=covered))
