"""A key's way: read at the source, written once at the destination, and read back there when all writing has ended."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from pulumi_keystore import failpoints
from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.counting import count
from pulumi_keystore.errors import KeystoreFault
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError, Entry
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.transport import Transport

Fingerprint = Callable[[str, str, bytes], bytes]
"""Keyed digest of (organization, user, key)."""


class Source(Protocol):
    """What a migration needs of the keystore it moves keys out of."""

    def read_entry(self, entry: Entry) -> Flow[ArchiveKey | None]:
        """Return the key of an entry, or None where there is none."""


@dataclass(frozen=True, slots=True)
class VaultSource:
    """A Vault keystore as a source."""

    keystore: VaultKeystore

    def read_entry(self, entry: Entry) -> Flow[ArchiveKey | None]:
        """Return the key of an entry."""
        return self.keystore.read(entry.name)


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies and verifies entries; every copy is marked with `origin`, the id of the migration."""

    source: Source
    destination: VaultKeystore
    origin: str
    fingerprint: Fingerprint

    def copy(self, entry: Entry) -> Flow[bytes | None]:
        """Write one key at the destination where nothing is; return the fingerprint of what was read at the source.

        Safe to repeat: a copy of this migration that is there already is compared instead. None is for a key that
        was given up and is missing.

        Raises:
            MigrationFailed: It cannot be moved.

        """
        try:
            record = yield from self.source.read_entry(entry)
        except KeystoreFault as fault:
            raise MigrationFailed(Ending.SOURCE_NOT_REACHABLE, str(fault)) from None
        except DamagedRecordError as damage:
            raise _unverified(f"the source holds a damaged key: {damage}") from None
        if record is None and entry.given_up:
            return None
        if record is None:
            raise _unverified("a key that is in escrow is missing at the source")
        digest = self.fingerprint(record.organization, record.user, record.key)
        if record.user != entry.user or not hmac.compare_digest(digest, entry.fingerprint):
            raise _unverified("a key at the source is not the one that was enrolled")
        copy = replace(record, generation=entry.generation, origin=self.origin)
        try:
            found = yield from self.destination.put(copy)
        except KeystoreFault as fault:
            raise MigrationFailed(Ending.DESTINATION_NOT_REACHABLE, str(fault)) from None
        except DamagedRecordError as damage:
            raise _unverified(f"found at the destination: {damage}") from None
        if found is not None and not (found.same_key(copy) and found.origin == self.origin):
            raise _unverified("another writer has written a key at the destination")
        failpoints.reach("shard.copying")
        return digest

    def verify(self, entry: Entry) -> Flow[bytes | None]:
        """Read one key back at the destination; return the fingerprint of what was read there.

        None is for a key that was given up and is missing.

        Raises:
            MigrationFailed: It is missing, or another one, or cannot be read.

        """
        try:
            record = yield from self.destination.read(entry.name)
        except KeystoreFault as fault:
            raise MigrationFailed(Ending.DESTINATION_NOT_REACHABLE, str(fault)) from None
        except DamagedRecordError as damage:
            raise _unverified(f"read back at the destination: {damage}") from None
        if record is None and entry.given_up:
            return None
        if record is None:
            raise _unverified("a key is missing at the destination")
        if record.expires:
            raise _unverified(f"the destination deletes what is written there; {self.destination.keep_hint()}")
        digest = self.fingerprint(record.organization, record.user, record.key)
        whose = (record.user, record.generation, record.origin)
        if whose != (entry.user, entry.generation, self.origin) or not hmac.compare_digest(digest, entry.fingerprint):
            raise _unverified("a key read back at the destination differs")
        failpoints.reach("shard.verifying")
        return digest


def check_inventory(transport: Transport, keystore: VaultKeystore, expected: int) -> None:
    """Compare how many names are listed at the destination with how many keys have been read back there.

    Raises:
        KeystoreFault: The keystore cannot be reached or does not allow it.
        MigrationFailed: There are fewer or more.

    """
    found = keystore.count(transport)
    if found < expected:
        raise _unverified(f"{count(expected - found, 'key')} missing at the destination")
    if found > expected:
        raise _unverified(f"{count(found - expected, 'entry')} too many at the destination: not of this migration")


def _unverified(detail: str) -> MigrationFailed:
    return MigrationFailed(Ending.VERIFICATION_FAILED, detail)
