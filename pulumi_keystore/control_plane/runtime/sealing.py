"""Encryption at rest under a master key that is not in the database.

AES-256-GCM with a key derived per purpose (HKDF-SHA-256, RFC 5869). Each output begins with a version octet; the
purpose and the row it belongs to are authenticated, so that a value moved to another row does not open.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pulumi_keystore.errors import KeystoreError

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_OTHERS: Final = 0o027
"""Permissions that a master key must not give: to others any, to the group more than to read it."""


class MasterKey:
    """The key from which every key of the service is derived. Its bytes are in no repr."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._derived: dict[str, bytes] = {}

    @classmethod
    def load_or_create(cls, path: Path) -> MasterKey:
        """Read the master key, or make one that only its owner can read.

        Raises:
            KeystoreError: The file holds something else.

        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(b64encode(os.urandom(_KEY_BYTES)).decode() + "\n")
                file.flush()
                os.fsync(file.fileno())
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> MasterKey:
        """Read the master key.

        Raises:
            KeystoreError: The file is missing or holds something else.

        """
        hint = "restore the file from your secrets store; without it nothing in the database can be opened"
        try:
            if path.stat().st_mode & _OTHERS:
                raise KeystoreError(
                    f"the master key file {path} can be read or changed by others", hint=f"run `chmod 600 {path}`"
                )
            secret = b64decode(path.read_text().strip(), validate=True)
        except FileNotFoundError:
            raise KeystoreError(f"the master key file {path} is missing", hint=hint) from None
        except (OSError, UnicodeDecodeError, Base64Error, ValueError):
            secret = b""
        if len(secret) != _KEY_BYTES:
            raise KeystoreError(
                f"the master key file {path} cannot be read, or does not hold base64 of 32 bytes", hint=hint
            )
        return cls(secret)

    def _derive(self, purpose: str) -> bytes:
        # A fingerprint is made of every key that moves; deriving its key costs more than the fingerprint.
        if purpose not in self._derived:
            self._derived[purpose] = self._newly_derived(purpose)
        return self._derived[purpose]

    def _newly_derived(self, purpose: str) -> bytes:
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"pulumi-keystore {purpose}".encode()).derive(self._secret)

    def seal(self, purpose: str, row: str, plain: bytes) -> bytes:
        """Encrypt a value for one row."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + AESGCM(self._derive(purpose)).encrypt(nonce, plain, f"{purpose}\0{row}".encode())

    def open(self, purpose: str, row: str, sealed: bytes) -> bytes:
        """Decrypt a value of one row.

        Raises:
            KeystoreError: It was sealed under another master key, for another row, or is damaged.

        """
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return AESGCM(self._derive(purpose)).decrypt(nonce, text, f"{purpose}\0{row}".encode())
        except (InvalidTag, ValueError):
            raise KeystoreError(
                "a sealed value in the database does not open with this master key",
                hint="start the service with the master key file that belongs to this database",
            ) from None

    def fingerprint(self, organization: str, user: str, key: bytes) -> bytes:
        """Return a keyed digest of an archive key (HMAC-SHA-256, 32 bytes): equality without the key."""
        return hmac.digest(self._derive("fingerprint"), f"{organization}\0{user}\0".encode() + key, "sha256")
