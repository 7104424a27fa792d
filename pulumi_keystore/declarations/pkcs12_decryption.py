"""What `cryptography` does not say of a PKCS#12 file: how many keys are in it, and whether the password was right.

Used by the helper process alone (see `pkcs12`), on files that `inspect` let pass. Sources: RFC 7292 appendix B (keys
from passwords), RFC 8018 (PBES2).
"""

from __future__ import annotations

import hashlib
import hmac
from functools import partial

from pulumi_keystore.declarations import pkcs12_inspection
from pulumi_keystore.declarations.pkcs12_inspection import AES_CBC, PBES2, EncryptedPart

_TRIPLE_DES = {"1.2.840.113549.1.12.1.3": 24, "1.2.840.113549.1.12.1.4": 16}
"""Octets of the key of each scheme of PKCS#12 itself that uses 3DES."""
_KEY, _IV, _MAC = 1, 2, 3
"""What a key is made for (RFC 7292 appendix B.3)."""


def keys_in(data: bytes, password: bytes) -> int:
    """Return how many private keys a file holds that opens with this password.

    Parts encrypted with RC2 are not looked into: nothing but OpenSSL still reads them.
    """
    seen = pkcs12_inspection.inspect(data)
    hidden = (_decrypted(part, password) for part in seen.encrypted_parts)
    return seen.keys + sum(pkcs12_inspection.count_keys(contents) for contents in hidden)


def _decrypted(part: EncryptedPart, password: bytes) -> bytes:
    # Only the helper process pays for the import.
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers import Cipher, modes  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.algorithms import AES  # noqa: PLC0415

    if part.scheme == PBES2 and part.cipher in AES_CBC:
        key = hashlib.pbkdf2_hmac(part.digest, password, part.salt, part.iterations, AES_CBC[part.cipher])
        decryptor = Cipher(AES(key), modes.CBC(part.iv)).decryptor()
    elif part.scheme in _TRIPLE_DES:
        key = _key(_KEY, password, part.salt, part.iterations, _TRIPLE_DES[part.scheme])
        decryptor = Cipher(TripleDES(key), modes.CBC(_key(_IV, password, part.salt, part.iterations, 8))).decryptor()
    else:
        return b""
    padded = decryptor.update(part.content) + decryptor.finalize()
    return padded[: -padded[-1]] if padded else b""


def fits(data: bytes, password: bytes) -> bool:
    """Tell whether the password is the one of the file's integrity code, and the file is as it was made."""
    mac = pkcs12_inspection.inspect(data).mac
    if mac is None:
        return False
    size = hashlib.new(mac.digest, usedforsecurity=False).digest_size
    key = _key(_MAC, password, mac.salt, mac.iterations, size, mac.digest)
    return hmac.compare_digest(hmac.digest(key, mac.covered, mac.digest), mac.value)


def _key(purpose: int, password: bytes, salt: bytes, iterations: int, size: int, digest: str = "sha1") -> bytes:
    """Make a key of a password (RFC 7292 appendix B.2)."""
    # By its own constructor: by its name it would be looked up millions of times.
    hash_of = partial(getattr(hashlib, digest), usedforsecurity=False)
    block = hash_of().block_size
    secret = password.decode().encode("utf-16-be") + b"\0\0"
    stretched = bytearray(_filled(salt, block) + _filled(secret, block))
    key = b""
    while len(key) < size:
        hashed = bytes([purpose]) * block + stretched
        for _ in range(iterations):
            hashed = hash_of(hashed).digest()
        key += hashed
        added = int.from_bytes(_filled(hashed, block)[:block], "big") + 1
        for at in range(0, len(stretched), block):
            piece = int.from_bytes(stretched[at : at + block], "big") + added
            stretched[at : at + block] = (piece % (1 << 8 * block)).to_bytes(block, "big")
    return key[:size]


def _filled(text: bytes, block: int) -> bytes:
    """Repeat a text until it fills whole blocks."""
    size = block * -(-len(text) // block)
    return (text * (size // len(text) + 1))[:size] if text else b""
