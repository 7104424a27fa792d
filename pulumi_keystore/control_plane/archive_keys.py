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
from dataclasses import replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pulumi_keystore import rules
from pulumi_keystore.certificate import now_utc
from pulumi_keystore.control_plane import migrations, organizations
from pulumi_keystore.control_plane.connections import Connections
from pulumi_keystore.control_plane.models import ArchiveKeyEntry, Keystore, LegacyKey, Organization
from pulumi_keystore.control_plane.plane import ControlPlane
from pulumi_keystore.errors import Conflict, InvalidInput, KeystoreFault, NotFound
from pulumi_keystore.keystores.legacy import read_rows
from pulumi_keystore.keystores.record import KEY_BYTES, ArchiveKey, DamagedRecordError
from pulumi_keystore.keystores.tenancy import key_name
from pulumi_keystore.keystores.transport import Flow, Transport
from pulumi_keystore.keystores.vault import VaultKeystore

LEGACY_PURPOSE: Final = "legacy-key"
FIRST_GENERATION: Final = 1
_AT_A_TIME: Final = 16
SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


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


def release_info(organization: str, user: str) -> bytes:
    """Return the HPKE info string that binds a released key to its owner."""
    return f"pulumi-keystore release v1\0{organization}\0{user}".encode()


def escrow(plane: ControlPlane, connections: Connections, organization: str, keys: Mapping[str, bytes]) -> int:
    """Put users' first archive keys into the active keystore; return how many were new.

    All or nothing. Safe to repeat with the same keys.

    Raises:
        RuleViolation: KS035.
        Conflict: A user has another key in escrow, or there is no keystore.
        InMaintenance: A migration is running.
        KeystoreFault: The keystore cannot take them; nothing was enrolled.

    """
    for user in keys:
        rules.check_user_id(user)
    origin = f"enrolment {secrets.token_hex(8)}"
    with plane.transaction() as session:
        owner = organizations.find(session, organization)
        organizations.let_write(session, owner.id)
        # Read again now that nobody changes it; others may share the lock.
        session.refresh(owner, with_for_update={"read": True})
        online = migrations.online(session, owner)
        if online is None:
            organizations.require_no_maintenance(owner)
        active = _active(session, owner)
        new = _insert_entries(plane, session, owner, keys)
        records = [ArchiveKey(owner.name, user, FIRST_GENERATION, keys[user], origin) for user in new]
        other = migrations.note_late(session, online, new) if online else None
        if active.kind == "legacy":
            for record in records:
                sealed = plane.master_key.seal(LEGACY_PURPOSE, f"{owner.id}/{record.user}", record.key)
                session.add(LegacyKey(organization_id=owner.id, user=record.user, key_sealed=sealed))
        elif records:
            _write(plane, connections, owner, active, records)
            if other is not None and online is not None:
                _copy_over(connections, owner, other, [replace(record, origin=online.id) for record in records])
        return len(records)


def _insert_entries(plane: ControlPlane, session: Session, owner: Organization, keys: Mapping[str, bytes]) -> list[str]:
    """Insert a row for each new user; return their ids. A second enrolment of one user waits here for the first."""
    rows = [
        {
            "organization_id": owner.id,
            "user": user,
            "generation": FIRST_GENERATION,
            "fingerprint": _fingerprint(plane, owner, user, keys),
            "escrowed_at": now_utc(),
        }
        for user in sorted(keys)
    ]
    if not rows:
        return []
    statement = insert(ArchiveKeyEntry).on_conflict_do_nothing().returning(ArchiveKeyEntry.user)
    new = set(session.scalars(statement, rows))
    known = {user: _fingerprint(plane, owner, user, keys) for user in keys if user not in new}
    for entry in session.scalars(
        select(ArchiveKeyEntry).where(
            ArchiveKeyEntry.organization_id == owner.id, ArchiveKeyEntry.user.in_(list(known))
        )
    ):
        if not hmac.compare_digest(entry.fingerprint, known[entry.user]):
            raise Conflict(
                f"user: {entry.user[:100]!r} has another archive key in escrow",
                hint="an archive key is never overwritten; release the one there is",
                prop="user",
            )
    return sorted(new)


def _fingerprint(plane: ControlPlane, owner: Organization, user: str, keys: Mapping[str, bytes]) -> bytes:
    return plane.master_key.fingerprint(owner.name, user, keys[user])


def _write(
    plane: ControlPlane, connections: Connections, owner: Organization, keystore: Keystore, records: list[ArchiveKey]
) -> None:
    with connections.borrow(owner, keystore) as connection:
        transport, vault = connection.transport, connection.vault

        def put(record: ArchiveKey) -> Flow[bool]:
            found = yield from vault.ensure(record)
            if not found.same_key(record):
                # Of an enrolment that was never acknowledged: the user's row would be there otherwise.
                yield from vault.delete(record.name)
                found = yield from vault.ensure(record)
            return found.same_key(record)

        try:
            if not all(list(transport.run(map(put, records), plane.settings.in_flight))):
                raise KeystoreFault(f"{vault}: a key read back differs", hint="check the server's storage")
        except DamagedRecordError as damage:
            _withdraw(transport, vault, records)
            raise KeystoreFault(f"{vault}: {damage}", hint="check the server's storage") from None
        except KeystoreFault:
            _withdraw(transport, vault, records)
            raise


def _copy_over(connections: Connections, owner: Organization, keystore: Keystore, copies: list[ArchiveKey]) -> None:
    """Write the keys to the other side of an online migration, too; what fails here, the migration does."""
    with contextlib.suppress(KeystoreFault, DamagedRecordError), connections.borrow(owner, keystore) as connection:
        for _ in connection.transport.run(map(connection.vault.place, copies), _AT_A_TIME):
            pass


def _withdraw(transport: Transport, vault: VaultKeystore, records: list[ArchiveKey]) -> None:
    """Remove what a failed enrolment wrote, as far as the server lets us; a repeat finds and replaces the rest."""
    try:
        for _ in transport.run((vault.delete_own(record.name, record.origin) for record in records), _AT_A_TIME):
            pass
    except KeystoreFault:
        return


def read(plane: ControlPlane, connections: Connections, organization: str, user: str) -> ArchiveKey:
    """Return a user's archive key from the active keystore, proved to be the one that was enrolled.

    Raises:
        NotFound: The user has no key in escrow.
        KeystoreFault: The keystore is unreachable, or what it holds is not the enrolled key.

    """
    rules.check_user_id(user)
    with plane.transaction() as session:
        owner = organizations.find(session, organization)
        entry = session.get(ArchiveKeyEntry, (owner.id, user))
        if entry is None:
            raise NotFound(f"user: {user[:100]!r} has no archive key in escrow", prop="user")
        active = _active(session, owner)
        record = _read_legacy(plane, session, owner, entry) if active.kind == "legacy" else None
    try:
        if active.kind != "legacy":
            with connections.borrow(owner, active) as connection:
                record = connection.transport.run_one(connection.vault.read(key_name(user, entry.generation)))
    except DamagedRecordError:
        record = None
    if record is None or not hmac.compare_digest(
        plane.master_key.fingerprint(owner.name, user, record.key), entry.fingerprint
    ):
        raise KeystoreFault(
            f"the keystore {active.name!r} does not hold the archive key that was enrolled",
            hint="restore the keystore from its snapshot",
        )
    return record


def _read_legacy(
    plane: ControlPlane, session: Session, owner: Organization, entry: ArchiveKeyEntry
) -> ArchiveKey | None:
    rows = session.scalars(
        select(LegacyKey.key_sealed).where(LegacyKey.organization_id == owner.id, LegacyKey.user == entry.user)
    ).all()
    try:
        return read_rows(owner.name, entry.user, entry.generation, rows, legacy_unseal(plane, owner.id))
    except DamagedRecordError:
        return None


def legacy_unseal(plane: ControlPlane, organization_id: int) -> Any:
    """Return the function that opens a user's legacy row."""

    def unseal(user: str, sealed: bytes) -> bytes:
        return plane.master_key.open(LEGACY_PURPOSE, f"{organization_id}/{user}", sealed)

    return unseal


def release(plane: ControlPlane, connections: Connections, organization: str, user: str, public_key: str) -> bytes:
    """Return a user's archive key encrypted to an X25519 public key (base64 of 32 bytes).

    The answer is HPKE base mode (DHKEM X25519, HKDF-SHA-256, AES-256-GCM): encapsulated key and ciphertext.

    Raises:
        InvalidInput: It is no such public key.
        NotFound, KeystoreFault: As `read`.

    """
    try:
        recipient = X25519PublicKey.from_public_bytes(b64decode(public_key, validate=True))
    except (Base64Error, ValueError):
        raise InvalidInput(
            "public_key: not an X25519 public key", hint="expected base64 of 32 bytes", prop="public_key"
        ) from None
    record = read(plane, connections, organization, user)
    return bytes(SUITE.encrypt(record.key, recipient, release_info(organization, user)))


def _active(session: Session, owner: Organization) -> Keystore:
    active = session.get(Keystore, owner.active_keystore_id) if owner.active_keystore_id else None
    if active is None:
        raise Conflict(
            f"the organization {owner.name!r} has no active keystore", hint="declare a Keystore for it first"
        )
    return active
