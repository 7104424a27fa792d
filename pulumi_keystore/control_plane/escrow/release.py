"""A key in escrow is read, and released to its user alone (contract: Escrow)."""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from sqlalchemy.orm import Session

from pulumi_keystore import key_release
from pulumi_keystore.control_plane.keystores.connections import Connections
from pulumi_keystore.control_plane.organizations import legacy, registry
from pulumi_keystore.control_plane.organizations.keystores import require_active
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind, check_user_id
from pulumi_keystore.declarations.tenancy import key_name
from pulumi_keystore.errors import InvalidInput, KeystoreFault, NotFound
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError


def read(plane: ControlPlane, connections: Connections, organization: str, user: str) -> ArchiveKey:
    """Return a user's archive key from the active keystore, proved to be the one that was enrolled.

    Raises:
        NotFound: The user has no key in escrow.
        KeystoreFault: The keystore is unreachable, or what it holds is not the enrolled key.

    """
    check_user_id(user)
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        entry = session.get(ArchiveKeyEntry, (owner.id, user))
        if entry is None:
            raise NotFound(f"the user {user[:100]!r} has no archive key in escrow", prop="user")
        active = require_active(session, owner)
        record = _read_legacy(plane, session, owner, entry) if active.kind == Kind.LEGACY else None
    try:
        if active.kind != Kind.LEGACY:
            with connections.borrow(owner, active) as connection:
                record = connection.transport.run_one(connection.vault.read(key_name(user, entry.generation)))
    except DamagedRecordError:
        record = None
    if record is None or not hmac.compare_digest(
        plane.master_key.fingerprint(owner.name, user, record.key), entry.fingerprint
    ):
        raise KeystoreFault(
            f"the keystore {active.name!r} does not hold the archive key that was enrolled",
            hint=f"`keystore verify {owner.name}` names what is missing; restore its snapshot, let the device enrol "
            f"the same key again, or run `keystore recover {owner.name}` if another keystore holds it",
        )
    return record


def _read_legacy(
    plane: ControlPlane, session: Session, owner: Organization, entry: ArchiveKeyEntry
) -> ArchiveKey | None:
    try:
        return legacy.of_user(plane, session, owner, entry.user, entry.generation)
    except DamagedRecordError:
        return None


def release(plane: ControlPlane, connections: Connections, organization: str, user: str, public_key: str) -> bytes:
    """Return a user's archive key encrypted to an X25519 public key (base64 of 32 bytes).

    The answer is HPKE base mode (DHKEM X25519, HKDF-SHA-256, AES-256-GCM): encapsulated key and ciphertext.

    Raises:
        InvalidInput: It is no such public key.
        NotFound, KeystoreFault: As `read`.

    """
    recipient = _recipient(public_key)
    record = read(plane, connections, organization, user)
    return key_release.seal(record.key, recipient, organization, user)


def _recipient(public_key: str) -> X25519PublicKey:
    try:
        recipient = X25519PublicKey.from_public_bytes(b64decode(public_key, validate=True))
        # What is sealed to a point of low order anybody could read: a secret of zeros is refused (RFC 7748, 6.1).
        X25519PrivateKey.generate().exchange(recipient)
    except (Base64Error, ValueError):
        raise InvalidInput(
            "public_key: not an X25519 public key", hint="expected base64 of 32 bytes", prop="public_key"
        ) from None
    return recipient
