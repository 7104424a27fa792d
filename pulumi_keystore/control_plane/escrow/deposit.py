"""Escrow of archive keys and their release (contract: Escrow).

An archive key goes from the caller to the active keystore and back. Here it exists in memory only, for the length of
one request, and it leaves encrypted to the caller's own public key (HPKE, RFC 9180).
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pulumi_keystore import failpoints, rules
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.escrow.quota import Quota
from pulumi_keystore.control_plane.keystores.checkpoints import Checkpoints
from pulumi_keystore.control_plane.keystores.connections import Connections
from pulumi_keystore.control_plane.organizations import ledger, legacy, maintenance, registry
from pulumi_keystore.control_plane.organizations.keystores import require_active
from pulumi_keystore.control_plane.organizations.tables import (
    ArchiveKeyEntry,
    DestroyedKey,
    Keystore,
    LegacyKey,
    Organization,
)
from pulumi_keystore.control_plane.runtime import leadership
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind, check_user_id
from pulumi_keystore.errors import Conflict, KeystoreFault, Unsuitable
from pulumi_keystore.vault.record import KEY_BYTES, ArchiveKey, DamagedRecordError
from pulumi_keystore.vault.requests import Flow

FIRST_GENERATION: Final = 1
_AT_A_TIME: Final = 16


def decode_key(text: str) -> bytes:
    """Return the 32 bytes of an archive key given in base64.

    Raises:
        RuleViolation: KS036; the text is not quoted.

    """
    try:
        key = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise rules.ARCHIVE_KEY.violation("the archive key is not base64") from None
    if len(key) != KEY_BYTES:
        raise rules.ARCHIVE_KEY.violation(f"the archive key has {len(key)} bytes")
    return key


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What an enrolment came to.

    Attributes:
        new: How many users had no key in escrow before.
        restored: How many had this very key, which was missing at the keystore and is there again.

    """

    new: int
    restored: int


def escrow(
    plane: ControlPlane,
    connections: Connections,
    checkpoints: Checkpoints,
    quota: Quota,
    organization: str,
    keys: Mapping[str, bytes],
) -> Enrolled:
    """Put users' first archive keys into the active keystore.

    All or nothing as far as the answer goes. Safe to repeat with the same keys: what an attempt that failed has
    written is found, and nothing is ever deleted or written over here.

    Raises:
        RuleViolation: KS035.
        Conflict: A user has another key in escrow or at the keystore, or there is no keystore.
        InMaintenance: A migration is running.
        TooManyRequests: The organization would have more keys than it may.
        RecoveryNeeded: The keystore knows more than this database.
        KeystoreFault: The keystore cannot take them; nothing was enrolled.

    """
    for user in keys:
        check_user_id(user)
    with plane.transaction() as session:
        owner = registry.find(session, organization)
    with plane.gate.passing(owner.id), contextlib.ExitStack() as stack:
        with plane.transaction() as session:
            owner = registry.find(session, organization)
            registry.require_known(owner)
            maintenance.require_writable(owner)
            active = require_active(session, owner)
            mirror = ledger.mirror(session, owner)
            sorted_out = _sort_out(plane, session, owner, keys)
            new_users = sum(generation == FIRST_GENERATION for _, generation in sorted_out.new)
            stack.enter_context(quota.room(session, owner, new_users))
        failpoints.reach("enrolment.sorted-out")
        restored = 0
        if active.kind != Kind.LEGACY and keys:
            # No transaction is open while the keystore is waited for; the gate keeps things as they are.
            connections.require_known(owner, active)
            restored = _write_all(plane, connections, owner, active, mirror, sorted_out, keys)
        failpoints.reach("enrolment.written")
        with plane.transaction() as session:
            leadership.require_lead(session, plane)
            owner = registry.find(session, organization)
            # A health check may have found meanwhile that the keystore knows more.
            registry.require_known(owner)
            new = _enter(plane, session, owner, sorted_out, keys)
            ledger.note_late(session, owner, new)
            if active.kind == Kind.LEGACY:
                for user in new:
                    sealed = plane.master_key.seal(legacy.LEGACY_PURPOSE, f"{owner.id}/{user}", keys[user])
                    session.add(LegacyKey(organization_id=owner.id, user=user, key_sealed=sealed))
    failpoints.reach("enrolment.entered")
    if new and active.kind != Kind.LEGACY:
        checkpoints.note(owner.id)
    return Enrolled(len(new), restored)


@dataclass(frozen=True, slots=True)
class _SortedOut:
    """Users and the generation of their key: those who are new in the ledger, and those who had this very key.

    A user whose key was given up may come with another one, which gets the next generation.
    """

    new: list[tuple[str, int]]
    known: list[tuple[str, int]]


def _sort_out(plane: ControlPlane, session: Session, owner: Organization, keys: Mapping[str, bytes]) -> _SortedOut:
    """Compare keys with the ledger.

    Raises:
        Conflict: A user has another one in escrow.

    """
    mine = (ArchiveKeyEntry.organization_id == owner.id, ArchiveKeyEntry.user.in_(list(keys)))
    entries = {entry.user: entry for entry in session.scalars(select(ArchiveKeyEntry).where(*mine))} if keys else {}
    new, known = [], []
    for user in sorted(keys):
        entry = entries.get(user)
        if entry is None:
            new.append((user, FIRST_GENERATION))
        elif hmac.compare_digest(entry.fingerprint, _fingerprint(plane, owner, user, keys)):
            known.append((user, entry.generation))
        elif entry.given_up_at is not None:
            new.append((user, entry.generation + 1))
        else:
            raise _other_key(user)
    return _SortedOut(new, known)


def _other_key(user: str) -> Conflict:
    return Conflict(
        f"user: {user[:100]!r} has another archive key in escrow",
        hint="an archive key is never overwritten; release the one there is",
        prop="user",
    )


def _write_all(
    plane: ControlPlane,
    connections: Connections,
    owner: Organization,
    active: Keystore,
    mirror: Keystore | None,
    sorted_out: _SortedOut,
    keys: Mapping[str, bytes],
) -> int:
    """Write keys at the active keystore, and to the other side of an online migration; return how many were missing."""
    origin = f"enrolment {secrets.token_hex(8)}"
    records = [ArchiveKey(owner.name, user, generation, keys[user], origin) for user, generation in sorted_out.new]
    known = [ArchiveKey(owner.name, user, generation, keys[user], origin) for user, generation in sorted_out.known]
    restored = _write(plane, connections, owner, active, records, known)
    if mirror is not None:
        # As the migration's own copies, with which they are removed if it fails.
        copies = [replace(record, origin=owner.maintenance_by or "") for record in records]
        _copy_over(connections, owner, mirror, copies)
    return restored


def _enter(
    plane: ControlPlane, session: Session, owner: Organization, sorted_out: _SortedOut, keys: Mapping[str, bytes]
) -> list[str]:
    """Write keys that are at the keystore now into the ledger; return whose were new.

    Raises:
        Conflict: A user was enrolled with another one by another request meanwhile.

    """
    rows = [
        {
            "organization_id": owner.id,
            "user": user,
            "generation": generation,
            "fingerprint": _fingerprint(plane, owner, user, keys),
            "escrowed_at": now_utc(),
        }
        for user, generation in sorted_out.new
    ]
    mine = ArchiveKeyEntry.organization_id == owner.id
    if sorted_out.known:
        again = [user for user, _ in sorted_out.known]
        session.execute(update(ArchiveKeyEntry).where(mine, ArchiveKeyEntry.user.in_(again)).values(given_up_at=None))
    if not rows:
        return []
    fresh = insert(ArchiveKeyEntry)
    given_up = fresh.on_conflict_do_update(
        index_elements=[ArchiveKeyEntry.organization_id, ArchiveKeyEntry.user],
        set_={
            "generation": fresh.excluded.generation,
            "fingerprint": fresh.excluded.fingerprint,
            "given_up_at": None,
            # It counts as enrolled now: who looks for what came since a moment finds it.
            "number": fresh.excluded.number,
        },
        where=ArchiveKeyEntry.given_up_at.is_not(None),
    )
    entered = set(session.scalars(given_up.returning(ArchiveKeyEntry.user), rows))
    for user, _ in sorted_out.new:
        if user not in entered:
            entry = session.get_one(ArchiveKeyEntry, (owner.id, user))
            if not hmac.compare_digest(entry.fingerprint, _fingerprint(plane, owner, user, keys)):
                raise _other_key(user)
    theirs = [row["fingerprint"] for row in rows]
    session.execute(
        delete(DestroyedKey).where(DestroyedKey.organization_id == owner.id, DestroyedKey.fingerprint.in_(theirs))
    )
    return sorted(entered)


def _fingerprint(plane: ControlPlane, owner: Organization, user: str, keys: Mapping[str, bytes]) -> bytes:
    return plane.master_key.fingerprint(owner.name, user, keys[user])


def _write(
    plane: ControlPlane,
    connections: Connections,
    owner: Organization,
    keystore: Keystore,
    records: list[ArchiveKey],
    known: list[ArchiveKey],
) -> int:
    """Write new keys, and those known ones that are missing; return how many of these there were.

    What an attempt leaves that fails in the middle stays: a repeat finds it, and a deletion that is late in the
    network would strike the key of a repeat that was acknowledged.
    """
    with connections.borrow(owner, keystore) as connection:
        transport, vault = connection.transport, connection.vault

        def write(record: ArchiveKey) -> Flow[bool]:
            found = yield from vault.ensure(record)
            if not found.same_key(record):
                raise Conflict(
                    f"user: {record.user[:100]!r} has another archive key at the keystore {keystore.name!r}, which "
                    "this database does not know",
                    hint=f"nothing was overwritten: `keystore recover {owner.name}` takes it into the ledger, "
                    f"`keystore key destroy {owner.name} USER` removes it for good",
                    prop="user",
                )
            if found.expires:
                raise Unsuitable(f"{vault}: the mount deletes what is written by itself", hint=vault.keep_hint())
            return True

        def restore(record: ArchiveKey) -> Flow[bool]:
            found = yield from vault.read(record.name)
            if found is None:
                return (yield from write(record))
            if not found.same_key(record):
                raise KeystoreFault(
                    f"{vault}: holds another key than the one that was enrolled",
                    hint=f"see whose with `keystore verify {owner.name}`, and restore the keystore from its snapshot",
                )
            return False

        try:
            list(transport.run(map(write, records), plane.settings.in_flight))
            return sum(transport.run(map(restore, known), plane.settings.in_flight))
        except DamagedRecordError as damage:
            raise KeystoreFault(f"{vault}: {damage}", hint="check the server's storage") from None


def _copy_over(connections: Connections, owner: Organization, keystore: Keystore, copies: list[ArchiveKey]) -> None:
    """Write the keys to the other side of an online migration, too; what fails here, the migration does."""
    with contextlib.suppress(KeystoreFault, DamagedRecordError), connections.borrow(owner, keystore) as connection:
        for _ in connection.transport.run(map(connection.vault.put, copies), _AT_A_TIME):
            pass
