"""One archive key as it lies in a keystore."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import Any, Final

from pulumi_keystore.declarations.names import check_user_id
from pulumi_keystore.declarations.tenancy import key_name
from pulumi_keystore.errors import RuleViolation

KEY_BYTES: Final = 32
FORMAT: Final = "1"
_MOST_GENERATIONS: Final = 2**31 - 1
"""What the ledger can hold."""


class DamagedRecordError(ValueError):
    """What lies in the keystore is no archive key record; the message holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as the ledger knows it: whose it is, which generation, and the digest it was enrolled with.

    One that was given up may be missing at the keystore.
    """

    user: str
    generation: int
    fingerprint: bytes = field(repr=False)
    given_up: bool = False

    @property
    def name(self) -> str:
        """Last path segment of the key in a Vault keystore."""
        return key_name(self.user, self.generation)


@dataclass(frozen=True, slots=True)
class ArchiveKey:
    """A user's archive key: 32 bytes of AES-256, and whose it is.

    Attributes:
        user: The user id, as enrolled.
        generation: 1 for the first key; a re-wrapped key is a new generation under a new name.
        key: The 32 key bytes.
        origin: Id of the enrolment or migration that wrote this copy: clean-up removes only what is its own.
        expires: Whether the mount that it was read from will delete it by itself (KV version 2, `deletion_time`).

    """

    organization: str
    user: str
    generation: int
    key: bytes = field(repr=False)
    origin: str = ""
    expires: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """Last path segment under which the key lies."""
        return key_name(self.user, self.generation)

    def same_key(self, other: ArchiveKey) -> bool:
        """Tell, in constant time, whether two records hold the same key of the same user."""
        return (
            hmac.compare_digest(self.key, other.key)
            and self.organization == other.organization
            and self.user == other.user
            and self.generation == other.generation
        )

    def to_body(self) -> dict[str, Any]:
        """Return the JSON object that is written to the keystore."""
        return {
            "format": FORMAT,
            "organization": self.organization,
            "user": self.user,
            "generation": self.generation,
            "archive_key": b64encode(self.key).decode(),
            "origin": self.origin,
        }

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> ArchiveKey:
        """Parse what was read from a keystore.

        Raises:
            DamagedRecordError: It is not a record, or the key is not 32 bytes.

        """
        try:
            key = b64decode(body["archive_key"], validate=True)
            user, generation = check_user_id(str(body["user"])), int(body["generation"])
            record = cls(str(body["organization"]), user, generation, key, str(body.get("origin", "")))
        except (KeyError, TypeError, ValueError, Base64Error, RuleViolation):
            raise DamagedRecordError("not an archive key record") from None
        if len(key) != KEY_BYTES or body.get("format") != FORMAT or not 1 <= generation <= _MOST_GENERATIONS:
            raise DamagedRecordError("an archive key of the wrong length, generation or format")
        return record
