"""What lies in a keystore, in two numbers: how many archive keys, and one digest of them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MODULUS: Final = 1 << 256


@dataclass(slots=True)
class Inventory:
    """A count and the sum, modulo 2**256, of the fingerprints of all keys.

    A fingerprint is a keyed digest of organization, user and key (HMAC-SHA-256), so the sum is a keyed digest of the
    whole set that does not depend on the order: shards are summed apart, by any worker, in constant memory
    (MSet-Add-Hash of Clarke et al., ASIACRYPT 2003).
    """

    count: int = 0
    total: int = 0

    def add(self, fingerprint: bytes) -> None:
        """Count one key in."""
        self.count += 1
        self.total = (self.total + int.from_bytes(fingerprint, "big")) % _MODULUS

    def merge(self, other: Inventory) -> None:
        """Count all of another inventory in."""
        self.count += other.count
        self.total = (self.total + other.total) % _MODULUS

    @property
    def digest(self) -> bytes:
        """The sum in 32 bytes."""
        return self.total.to_bytes(32, "big")

    @classmethod
    def of(cls, count: int, digest: bytes) -> Inventory:
        """Return the inventory that was stored as a count and a digest."""
        return cls(count, int.from_bytes(digest, "big"))
