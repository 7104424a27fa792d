"""Copying archive keys and reading each one back."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from pulumi_keystore.errors import KeystoreFault
from pulumi_keystore.keystores.record import ArchiveKey, DamagedRecordError
from pulumi_keystore.keystores.tenancy import CANARY_PREFIX, key_name
from pulumi_keystore.keystores.transport import Flow, Transport
from pulumi_keystore.keystores.vault import VaultKeystore
from pulumi_keystore.migration.endings import Ending, MigrationFailed

Fingerprint = Callable[[str, str, bytes], bytes]
"""Keyed digest of (organization, user, key)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key that has to move: whose it is, which generation, and the digest it was enrolled with."""

    user: str
    generation: int
    fingerprint: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Last path segment of the key in a Vault keystore."""
        return key_name(self.user, self.generation)


class Source(Protocol):
    """What a migration needs of the keystore it moves keys out of."""

    def read_entry(self, entry: Entry) -> Flow[ArchiveKey | None]:
        """Return the key of an entry, or None where there is none."""

    def close(self) -> Flow[None]:
        """Give back what reading needed."""


@dataclass(frozen=True, slots=True)
class VaultSource:
    """A Vault keystore as a source."""

    keystore: VaultKeystore

    def read_entry(self, entry: Entry) -> Flow[ArchiveKey | None]:
        """Return the key of an entry."""
        return self.keystore.read(entry.name)

    def close(self) -> Flow[None]:
        """Give the token back."""
        return self.keystore.revoke()


class StallWatch:
    """Raises once no key has moved for a window of monotonic time, however the wall clock jumps."""

    def __init__(self, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._last = clock()

    def moved(self) -> None:
        """Note that a key has moved."""
        self._last = self._clock()

    def check(self) -> None:
        """Raise `MigrationFailed` (stalled) at the end of the window."""
        if self._clock() - self._last > self._window_s:
            raise MigrationFailed(Ending.STALLED, f"no archive key moved for {self._window_s:g} s")


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies entries from a source to a destination; every copy is marked with `origin`."""

    source: Source
    destination: VaultKeystore
    origin: str
    fingerprint: Fingerprint

    def run(self, transport: Transport, entries: Iterable[Entry], in_flight: int, watch: StallWatch) -> Iterator[Entry]:
        """Move entries and yield each as soon as it is proved at the destination.

        At the end, however it comes, the destination's token is revoked: a request that was cut off can not
        take effect later.

        Raises:
            MigrationFailed: On the first entry that cannot be moved.

        """
        try:
            for entry in transport.run((self._move(entry) for entry in entries), in_flight, watch.check):
                watch.moved()
                yield entry
        finally:
            transport.run_one(self.destination.revoke())
            transport.run_one(self.source.close())

    def _move(self, entry: Entry) -> Flow[Entry]:
        try:
            record = yield from self.source.read_entry(entry)
        except KeystoreFault as fault:
            raise MigrationFailed(Ending.SOURCE_NOT_REACHABLE, str(fault)) from None
        except DamagedRecordError as damage:
            raise _unverified(f"the source holds a damaged key: {damage}") from None
        if record is None:
            raise _unverified("a key that is in escrow is missing at the source")
        digest = self.fingerprint(record.organization, record.user, record.key)
        if record.user != entry.user or not hmac.compare_digest(digest, entry.fingerprint):
            raise _unverified("a key at the source is not the one that was enrolled")
        copy = replace(record, generation=entry.generation, origin=self.origin)
        try:
            found = yield from self.destination.ensure(copy)
        except KeystoreFault as fault:
            raise MigrationFailed(Ending.DESTINATION_NOT_REACHABLE, str(fault)) from None
        except DamagedRecordError as damage:
            raise _unverified(f"read back at the destination: {damage}") from None
        if not found.same_key(copy) or found.origin != self.origin:
            raise _unverified("a key read back at the destination differs")
        return entry


def check_inventory(names: Iterable[str], expected: set[str]) -> None:
    """Compare what lies at the destination with what should.

    Raises:
        MigrationFailed: Something is missing or surplus.

    """
    present = {name for name in names if not name.startswith(CANARY_PREFIX)}
    if missing := expected - present:
        raise _unverified(f"{len(missing):,} keys are missing at the destination")
    if surplus := present - expected:
        raise _unverified(f"{len(surplus):,} entries at the destination are not of this migration")


def remove_own(
    transport: Transport, keystore: VaultKeystore, origin: str, entries: Iterable[Entry], in_flight: int
) -> None:
    """Remove the copies that one migration wrote, and nothing else.

    Raises:
        KeystoreFault: The keystore cannot be reached or does not allow it; some copies may be left.

    """
    present = set(transport.run_one(keystore.names()))
    ours = (entry for entry in entries if entry.name in present)
    for _ in transport.run((keystore.delete_own(entry.name, origin) for entry in ours), in_flight):
        pass


def remove_all(transport: Transport, keystore: VaultKeystore, entries: Iterable[Entry], in_flight: int) -> int:
    """Remove the keys of entries whoever wrote them, as after a migration away from a keystore.

    Returns how many other things are left in the organization's path: deleted versions of keys that nobody has in
    escrow, say. They are not ours to remove.

    Raises:
        KeystoreFault: The keystore cannot be reached or does not allow it; some keys may be left.

    """
    present = set(transport.run_one(keystore.names()))
    names = [entry.name for entry in entries if entry.name in present]
    for _ in transport.run((keystore.delete(name) for name in names), in_flight):
        pass
    return sum(not name.startswith(CANARY_PREFIX) for name in present.difference(names))


def _unverified(detail: str) -> MigrationFailed:
    return MigrationFailed(Ending.VERIFICATION_FAILED, detail)
