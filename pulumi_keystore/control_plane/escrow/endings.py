"""How an archive key leaves escrow: destroyed on purpose, or given up because it is lost."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, clean_ups, fencing, opening, removal
from pulumi_keystore.control_plane.keystores.checkpoints import Checkpoints
from pulumi_keystore.control_plane.organizations import history, keystores, ledger, maintenance, registry
from pulumi_keystore.control_plane.organizations.tables import (
    ArchiveKeyEntry,
    DestroyedKey,
    Keystore,
    LegacyKey,
    Organization,
)
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.names import Kind, check_user_id
from pulumi_keystore.declarations.tenancy import key_name
from pulumi_keystore.errors import NotFound
from pulumi_keystore.vault.record import DamagedRecordError
from pulumi_keystore.vault.transport import Transport


def destroy(plane: ControlPlane, noted: Checkpoints, actor: str, organization: str, user: str, reason: str) -> None:
    """Take a user's archive key out of escrow for good: first at the keystore, then in the ledger. Safe to repeat.

    The one deletion that compares with nothing: a person has asked for it, and history says who and why. A key that
    lies at the keystore without being in the ledger can be destroyed, too.

    Raises:
        RuleViolation: KS035.
        InvalidInput: There is no reason.
        NotFound: The user has no key, neither in the ledger nor at the keystore.
        Conflict, InMaintenance: Something else has to come to its end first.
        KeystoreFault: The keystore cannot be reached; the key is still in the ledger.

    """
    check_user_id(user)
    reason = clean_ups.require_reason(reason)
    with plane.transaction() as session:
        owner = registry.find(session, organization)
    # Nobody writes, moves or brings back a key meanwhile, nor begins a migration or an edit: there is no copy of it
    # under way that would turn up afterwards.
    with plane.gate.closed(owner.id):
        with plane.transaction() as session:
            owner = registry.find(session, organization, lock=True)
            registry.require_known(owner)
            maintenance.require_no_maintenance(owner)
            active = keystores.require_active(session, owner)
            entry = session.get(ArchiveKeyEntry, (owner.id, user))
            if entry is not None:
                # A copy that turns up later, at a keystore that has still to be emptied, is not carried back.
                _note_destroyed(session, owner, user, entry.fingerprint)
                history.append(session, owner.id, actor, "Archive key being destroyed", f"{user}; reason: {reason}")
        generation = entry.generation if entry else 1
        there = active.kind == Kind.LEGACY or _destroy_at(plane, owner, active, user, generation)
        if entry is None and not there:
            raise NotFound(f"the user {user[:100]!r} has no archive key in escrow", prop="user")
        with plane.transaction() as session:
            owner = registry.find(session, organization, lock=True)
            checkpoints.advance(owner)
            for table in (ArchiveKeyEntry, LegacyKey):
                session.execute(delete(table).where(table.organization_id == owner.id, table.user == user))
            history.append(session, owner.id, actor, "Archive key destroyed", f"{user}; reason: {reason}")
    noted.note(owner.id)


def _note_destroyed(session: Session, owner: Organization, user: str, fingerprint: bytes) -> None:
    values = {"organization_id": owner.id, "user": user, "fingerprint": fingerprint, "destroyed_at": now_utc()}
    session.execute(insert(DestroyedKey).values(values).on_conflict_do_nothing())


def _destroy_at(plane: ControlPlane, owner: Organization, active: Keystore, user: str, generation: int) -> bool:
    """Delete a user's key at the active keystore; return whether something lay there."""
    vault = opening.vault_of(plane, owner, active, announce=fencing.for_leader(plane, active))
    name = key_name(user, generation)
    with Transport() as transport:
        try:
            # A write of it that is late in the network would bring it back.
            fencing.fence(plane, transport, vault, owner.id)
            checkpoints.look(plane, transport, vault, owner.id)
            try:
                record = transport.run_one(vault.read(name))
                if record is not None:
                    digest = plane.master_key.fingerprint(owner.name, user, record.key)
                    with plane.transaction() as session:
                        _note_destroyed(session, owner, user, digest)
                there = record is not None
            except DamagedRecordError:
                there = True
            removal.destroy(transport, vault, name)
        finally:
            transport.run_one(vault.revoke())
    return there


def give_up(plane: ControlPlane, actor: str, organization: str, users: Sequence[str], reason: str) -> int:
    """Note that users' keys may be missing: neither an edit nor a migration is refused because of them any more.

    Nothing is deleted: a key that is there moves like any other, and one that its device enrols again is not given up
    any more. Returns how many there were.

    Raises:
        RuleViolation: KS035.
        InvalidInput: There is no reason.
        NotFound: A user has no key in escrow; none was given up.

    """
    reason = clean_ups.require_reason(reason)
    for user in users:
        check_user_id(user)
    with plane.transaction() as session:
        owner = registry.find(session, organization, lock=True)
        known = ledger.of_users(session, owner.id, users)
        for user in users:
            if user not in known:
                raise NotFound(
                    f"the user {user[:100]!r} has no archive key in escrow",
                    hint=f"`keystore verify {owner.name}` names the users whose key is missing",
                    prop="user",
                )
        mine = (ArchiveKeyEntry.organization_id == owner.id, ArchiveKeyEntry.user.in_(list(known)))
        session.execute(update(ArchiveKeyEntry).where(*mine).values(given_up_at=now_utc()))
        shown = ", ".join(sorted(known)[:20]) + (", …" if len(known) > 20 else "")  # noqa: PLR2004
        detail = f"{count(len(known), 'archive key')}: {shown}; reason: {reason}"
        history.append(session, owner.id, actor, "Archive keys given up", detail)
    return len(known)
