"""The one way in which an archive key is deleted (contract: Safety).

A key is deleted at a place only after the same key was read, and compared, at the active keystore, whose place is
another one. What is deleted is decided by what lies there, not by what the database says. A key that the active
keystore lacks is written there first, read back, and compared; one that differs is left alone, and counted.

The one exception is a key that a person has destroyed on purpose (`destroy`). Whether that is so is asked before a key
is written back, while no key can be destroyed: it would be there again afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from pulumi_keystore import failpoints
from pulumi_keystore.declarations.tenancy import KEY_NAME
from pulumi_keystore.errors import KeystoreFault, Unsuitable
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.transport import Transport

_PASSES = 3
_MOST_PASSES = 10
_AT_ONCE = 100
"""Keys written back while enrolments wait."""


class ActiveKeystore(Protocol):
    """What a removal asks of the keystore in use."""

    @property
    def place(self) -> Place | None:
        """Where its keys lie; None for a legacy one, which is no place on a Vault server."""

    def require(self) -> Flow[None]:
        """Make sure that it is the keystore that it was; raises `KeystoreFault`."""

    def same(self, record: ArchiveKey) -> Flow[ArchiveKey | None]:
        """Return the key of the record's user and generation, None where there is none."""

    def keep(self, record: ArchiveKey) -> Flow[None]:
        """Write the record where nothing is."""

    def has_enrolled(self, name: str) -> Flow[bool]:
        """Tell whether it holds, under a name, the very key that was enrolled under it."""


@dataclass(slots=True)
class ActiveVault:
    """A Vault keystore in use; `is_enrolled` tells whether a record is the key that was enrolled.

    `restored` counts the keys that it lacked and was given.
    """

    keystore: VaultKeystore
    is_enrolled: Callable[[ArchiveKey], bool]
    restored: int = 0

    @property
    def place(self) -> Place:
        """Where its keys lie."""
        return self.keystore.place

    def require(self) -> Flow[None]:
        """Make sure that the same cluster answers, and that it serves the organization."""
        yield from self.keystore.require_cluster()
        yield from self.keystore.check_list()

    def same(self, record: ArchiveKey) -> Flow[ArchiveKey | None]:
        """Return the key under the record's name."""
        return self.keystore.read(record.name)

    def keep(self, record: ArchiveKey) -> Flow[None]:
        """Write the record where nothing is."""
        yield from self.keystore.put(record)
        self.restored += 1

    def has_enrolled(self, name: str) -> Flow[bool]:
        """Read the key under a name, and compare it with the ledger."""
        try:
            found = yield from self.keystore.read(name)
        except DamagedRecordError:
            return False
        return found is not None and found.name == name and self.is_enrolled(found)


class Outcome(Enum):
    """What became of one name."""

    REMOVED = auto()
    GONE = auto()
    """Nothing that can be read lies there: a deleted version, or somebody else was quicker."""
    FOREIGN = auto()
    """It is no archive key of this organization, or not of the origin that was asked for."""
    LACKING = auto()
    """The active keystore does not hold it."""
    KEPT = auto()
    """The active keystore holds another key under that name."""


@dataclass(slots=True)
class Tally:
    """How many names came to which outcome in the last pass; what was removed, in all."""

    removed: int = 0
    kept: int = 0
    foreign: int = 0


class Removal:
    """Removes archive keys at one place.

    Args:
        transport: What carries the requests.
        at: The keystore that loses its keys.
        active: The keystore in use.
        in_flight: How many requests may be under way.
        destroyed: Tells whether a person has destroyed this very key on purpose, as of now.
        undisturbed: While it is entered no key of the organization is enrolled or destroyed.
        watch: Called at least once a second; what it raises ends the work.

    Raises:
        KeystoreFault: Either cannot be reached, or is another cluster than it was.
        Unsuitable: Both are one place.

    """

    def __init__(
        self,
        transport: Transport,
        at: VaultKeystore,
        active: ActiveKeystore,
        in_flight: int,
        destroyed: Callable[[ArchiveKey], bool],
        undisturbed: Callable[[], AbstractContextManager[None]],
        watch: Callable[[], None] | None = None,
    ) -> None:
        transport.run_one(at.require_cluster())
        transport.run_one(active.require())
        if not at.cluster_id or at.place == active.place:
            raise Unsuitable(
                f"{at}: {at.place} is the place of the active keystore, where nothing is deleted",
                hint="abandon this clean-up with `keystore clean-up abandon`",
            )
        self._transport = transport
        self._at = at
        self._active = active
        self._in_flight = in_flight
        self._destroyed = destroyed
        self._undisturbed = undisturbed
        self._lacking: list[ArchiveKey] = []
        self._watch = watch
        self._tally = Tally()

    def all_keys(self) -> Tally:
        """Remove every archive key of the organization, whoever wrote it, and what proofs have left.

        As after a migration away from here.

        What is left is looked at twice: one wrong answer of a server is not believed.

        Raises:
            KeystoreFault: A keystore cannot be reached or does not allow it; some keys may be left.

        """
        self._transport.run_one(self._at.remove_canaries())
        for _ in range(_PASSES):
            removed = self._pass(None)
            left = self._at.count(self._transport)
            if not left or (not removed and left <= self._tally.kept + self._tally.foreign):
                return self._tally
            if not removed:
                break
        raise KeystoreFault(f"{self._at}: keys that were deleted are still there", hint="check its storage")

    def own(self, origin: str) -> Tally:
        """Remove the copies and canaries that one migration wrote, and nothing else.

        It is done when a whole list has shown none of them, twice: one wrong answer of a server is not believed.

        Raises:
            KeystoreFault: A keystore cannot be reached or does not allow it; some copies may be left.

        """
        self._transport.run_one(self._at.remove_canaries(origin))
        clean = 0
        for _ in range(_MOST_PASSES):
            clean = 0 if self._pass(origin) else clean + 1
            if clean == 2:  # noqa: PLR2004 - twice, see above
                return self._tally
        raise KeystoreFault(f"{self._at}: copies that were deleted come back", hint="check its storage")

    def names(self, names: Iterable[str], origin: str) -> Tally:
        """Remove those of some names that one migration wrote."""
        self._work(names, origin)
        return self._tally

    def _pass(self, origin: str | None) -> int:
        """Go through the whole list once; return how many keys were removed."""
        self._tally.kept = self._tally.foreign = 0
        before = self._tally.removed
        for page in self._at.key_pages(self._transport):
            self._work(page, origin)
        return self._tally.removed - before

    def _work(self, names: Iterable[str], origin: str | None) -> None:
        self._count(self._remove(name, origin) for name in names)
        while self._lacking:
            some, self._lacking = self._lacking[:_AT_ONCE], self._lacking[_AT_ONCE:]
            with self._undisturbed():
                self._count(map(self._restore, some))

    def _count(self, flows: Iterable[Flow[Outcome]]) -> None:
        for outcome in self._transport.run(flows, self._in_flight, self._watch):
            self._tally.removed += outcome is Outcome.REMOVED
            self._tally.kept += outcome is Outcome.KEPT
            # What is gone may still be listed: a deleted version of KV version 2.
            self._tally.foreign += outcome in (Outcome.FOREIGN, Outcome.GONE)

    def _remove(self, name: str, origin: str | None) -> Flow[Outcome]:
        if not KEY_NAME.fullmatch(name):
            return Outcome.FOREIGN
        record: ArchiveKey | None = None
        try:
            record = yield from self._at.read(name)
            if record is None:
                return Outcome.GONE
            written_by: str | None = record.origin
        except DamagedRecordError:
            written_by = yield from self._at.origin(name)
        right = record is not None and record.name == name and record.organization == self._at.tenancy.organization
        if (written_by != origin) if origin else not right:
            return Outcome.FOREIGN
        if record is None or not right:
            held = yield from self._active.has_enrolled(name)
        else:
            try:
                found = yield from self._active.same(record)
            except DamagedRecordError:
                held = False
            else:
                if found is None:
                    self._lacking.append(record)
                    return Outcome.LACKING
                held = found.same_key(record)
            held = held or self._destroyed(record)
            if not held and origin:
                # A copy of ours that somebody has changed: the key itself is safe where it came from.
                held = yield from self._active.has_enrolled(name)
        return (yield from self._ended(name, held=held))

    def _restore(self, record: ArchiveKey) -> Flow[Outcome]:
        """Write a key back that the active keystore lacks, unless it was destroyed; nobody else writes or destroys."""
        held = self._destroyed(record)
        if not held:
            try:
                yield from self._active.keep(record)
                found = yield from self._active.same(record)
                held = found is not None and found.same_key(record)
            except DamagedRecordError:
                held = False
        return (yield from self._ended(record.name, held=held))

    def _ended(self, name: str, *, held: bool) -> Flow[Outcome]:
        if not held:
            return Outcome.KEPT
        failpoints.reach("clean-up.removing")
        yield from self._at.erase(name)
        return Outcome.REMOVED


def destroy(transport: Transport, at: VaultKeystore, name: str) -> None:
    """Delete a key that a person has chosen to destroy, and make sure that it is gone.

    Raises:
        KeystoreFault: The keystore cannot be reached or does not allow it, or the key is still there.

    """
    transport.run_one(at.erase(name))
    # Not older than the deletion, even where a standby lags behind.
    at.login_anew()
    try:
        left = transport.run_one(at.read(name)) is not None
    except DamagedRecordError:
        left = True
    if left:
        raise KeystoreFault(f"{at}: the key that was deleted is still there", hint="check its storage")
