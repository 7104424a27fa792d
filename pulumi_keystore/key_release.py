"""How an archive key is released: encrypted to the recipient's own public key, and to nobody else (HPKE, RFC 9180).

The service seals, the device opens; nothing in between can.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def seal(key: bytes, recipient: X25519PublicKey, organization: str, user: str) -> bytes:
    """Return a user's archive key (32 bytes) encrypted to a recipient; it opens for this user alone."""
    return bytes(_SUITE.encrypt(key, recipient, _info(organization, user)))


def open_sealed(sealed: bytes, recipient: X25519PrivateKey, organization: str, user: str) -> bytes:
    """Return the archive key that was sealed to a recipient.

    Raises:
        cryptography.exceptions.InvalidTag: It was sealed to somebody else, for another user, or was changed.

    """
    return bytes(_SUITE.decrypt(sealed, recipient, _info(organization, user)))


def _info(organization: str, user: str) -> bytes:
    return f"pulumi-keystore release v1\0{organization}\0{user}".encode()
