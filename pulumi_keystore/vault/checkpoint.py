"""What a keystore remembers of the decisions that the control plane has made about it (contract: Safety).

A database that is restored from a backup knows less than the keystores do. So each decision leaves a small record in
the organization's path, below `checkpoints/`: its number, which only grows, and a random stamp. Whoever finds a
higher number than its database has, or another stamp under the same one, works with an older database or beside
another service, and must change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pulumi_keystore.vault.record import DamagedRecordError

FOLDER: Final = "checkpoints/"
"""The part of the organization's path that holds them; no archive key's name has a slash."""
_FORMAT: Final = "1"
_DIGITS: Final = 12
_LONGEST: Final = 100
_LONGEST_NONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Stamp:
    """The number of a decision and the random text that tells it from another one of that number."""

    epoch: int
    nonce: str

    def is_behind(self, found: Checkpoint | None) -> bool:
        """Tell whether a keystore remembers a decision that is later than this one, or another one of its number."""
        if found is None or found.epoch < self.epoch:
            return False
        return found.epoch > self.epoch or found.nonce != self.nonce


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One record of a decision.

    Attributes:
        epoch: Its number.
        nonce: The random part of its stamp.
        organization: Whose keystore it is.
        active: Whether this place was the active one after the decision.
        keys: How many archive keys were in escrow then.
        at: When it was written, ISO 8601 in UTC; for people.

    """

    epoch: int
    nonce: str
    organization: str
    active: bool
    keys: int
    at: str

    @property
    def name(self) -> str:
        """Path of the record below the organization's."""
        return f"{FOLDER}{self.epoch:0{_DIGITS}d}"

    def to_body(self) -> dict[str, Any]:
        """Return the JSON object that is written to the keystore."""
        return {
            "format": _FORMAT,
            "organization": self.organization,
            "epoch": self.epoch,
            "nonce": self.nonce,
            "active": self.active,
            "keys": self.keys,
            "at": self.at,
        }

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Checkpoint:
        """Parse what was read from a keystore.

        Raises:
            DamagedRecordError: It is no checkpoint.

        """
        epoch, keys, active = body.get("epoch"), body.get("keys"), body.get("active")
        if body.get("format") != _FORMAT or not isinstance(epoch, int) or not isinstance(keys, int):
            raise DamagedRecordError("not a checkpoint")
        texts = [body.get(name) for name in ("nonce", "organization", "at")]
        if not isinstance(active, bool) or not all(isinstance(text, str) and len(text) <= _LONGEST for text in texts):
            raise DamagedRecordError("not a checkpoint")
        if not 0 <= epoch < 10**_DIGITS or not 0 <= keys < 10**_DIGITS or len(str(texts[0])) > _LONGEST_NONCE:
            raise DamagedRecordError("not a checkpoint of ours")
        nonce, organization, at = (str(text) for text in texts)
        # What is read here is stored, and shown to people.
        if not (
            f"{nonce}{organization}{at}".isascii() and f"{nonce}{organization}{at}".isprintable() and _is_moment(at)
        ):
            raise DamagedRecordError("not a checkpoint of ours")
        return cls(epoch, nonce, organization, active, keys, at)


def is_ours(name: str) -> bool:
    """Tell whether a name in the folder is that of a checkpoint."""
    return len(name) == _DIGITS and name.isascii() and name.isdigit()


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def latest(names: list[str]) -> str | None:
    """Return the name of the latest checkpoint of those listed in the folder; what looks like none is passed over."""
    return max(filter(is_ours, names), default=None)
