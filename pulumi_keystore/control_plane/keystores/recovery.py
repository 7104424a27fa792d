"""Bringing an organization back whose keystores know more than the database: lost, restored, or of another service.

Two steps: `plan` reads every registered keystore and says what would be taken over, and `apply` does it, if it is
still so. The keystore that remembers the latest decision becomes the active one; the archive keys that lie there are
taken into the ledger, and those that lie only elsewhere are written there, too. Nothing is deleted. A keystore that
cannot be read may be the one that holds the keys: nothing is done without it, unless a person leaves it out by name.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Final, cast

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pulumi_keystore.answers import RecoveryAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, opening
from pulumi_keystore.control_plane.keystores.alone import LONGEST_S, alone
from pulumi_keystore.control_plane.organizations import history, ledger, maintenance, registry
from pulumi_keystore.control_plane.organizations import keystores as keystores_of
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.declarations.tenancy import KEY_NAME, key_name
from pulumi_keystore.errors import Conflict, KeystoreFault, Unsuitable
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.transport import Transport

NAMED: Final = 20
"""How many users of each kind a plan names."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one keystore holds and remembers; `detail` says why it could not be read."""

    keystore: str
    address: str
    readable: bool
    epoch: int | None = None
    was_active: bool = False
    remembered_at: str | None = None
    keys: int = 0
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Users:
    """How many users, the first of them by name, and a digest of them all."""

    count: int
    names: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, users: set[str]) -> Users:
        """Return that of a set of user ids."""
        ordered = sorted(users)
        digest = hashlib.sha256("\0".join(ordered).encode()).hexdigest()[:16]
        return cls(len(ordered), tuple(ordered[:NAMED]), digest)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recovery would do.

    Attributes:
        organization: Whose recovery it is.
        suspended: Why it is suspended, None where it is not.
        keystore: The keystore that becomes the active one, or stays it.
        sides: What every registered Vault keystore holds.
        added: Users whose key is taken into the ledger.
        replaced: Users for whom the ledger has another key than the keystore, which is believed.
        gathered: Those of both whose key lies only at another keystore, and is written to the active one.
        missing: Users in the ledger whose key was found nowhere.
        unread: Keystores that cannot be read and were not left out; as long as there is one, nothing is done.

    """

    organization: str
    suspended: str | None
    keystore: str
    sides: tuple[Side, ...]
    added: Users
    replaced: Users
    gathered: Users
    missing: Users
    unread: tuple[str, ...]

    @property
    def code(self) -> str:
        """A short digest of it all: what was confirmed is what is done."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_document(self) -> RecoveryAnswer:
        """Return the plan as JSON-ready values."""
        return cast("RecoveryAnswer", {**asdict(self), "code": self.code})


@dataclass(slots=True)
class _Findings:
    """A plan, and the records behind it, by user."""

    plan: Plan
    active: Keystore
    epoch: int
    held: dict[str, tuple[int, bytes]] = field(repr=False)
    """Generation and fingerprint of each key that the new active keystore holds, or is given."""
    elsewhere: dict[str, Keystore] = field(repr=False)
    """Users whose key lies at another keystore alone."""


def plan(plane: ControlPlane, organization: str, without: Collection[str] = ()) -> Plan:
    """Read every registered keystore; say what a recovery would do. Nothing is changed.

    Args:
        plane: What it works with.
        organization: Whose recovery it is.
        without: Keystores to leave out: their servers are gone for good.

    Raises:
        Conflict: There is no Vault keystore to recover from, none can be read, or somebody reads the keys just now.
        NotFound: There is no keystore of that name.
        InMaintenance: A migration has not come to its end yet.

    """
    with _alone(plane, organization), Transport() as transport:
        return _find(plane, transport, organization, without).plan


def apply(plane: ControlPlane, actor: str, organization: str, code: str, without: Collection[str] = ()) -> Plan:
    """Do what a plan says; its arguments are those of `plan`.

    Raises:
        Conflict: It is not so any more, a keystore cannot be read, or there is nothing to recover from.
        NotFound: There is no keystore of that name.
        InMaintenance: A migration has not come to its end yet.
        KeystoreFault: A keystore cannot be reached; what was done can be done again.

    """
    with _alone(plane, organization), Transport() as transport:
        found = _find(plane, transport, organization, without)
        if found.plan.unread:
            raise _unread(found.plan)
        if found.plan.code != code:
            raise Conflict(
                f"the recovery plan of {organization!r} has changed since it was confirmed",
                hint=f"review it again with `keystore recover {organization}`",
            )
        with plane.transaction() as session:
            owner = registry.find(session, organization)
        _gather(plane, transport, owner, found)
        with plane.gate.closed(owner.id), plane.transaction() as session:
            owner = registry.find(session, organization, lock=True)
            maintenance.require_no_maintenance(owner)
            _take_in(session, owner, found)
            owner.epoch = max(owner.epoch, found.epoch)
            checkpoints.advance(owner)
            owner.active_keystore_id, owner.suspended = found.active.id, None
            done = found.plan
            history.append(
                session, owner.id, actor, "Organization recovered",
                f"{done.keystore} is the active keystore; {done.added.count:,} keys taken into the ledger, "
                f"{done.replaced.count:,} of them in the place of another, {done.gathered.count:,} brought there from "
                f"other keystores, {done.missing.count:,} found nowhere",
            )  # fmt: skip
        _remember(plane, transport, owner, found.active)
    return found.plan


@contextmanager
def _alone(plane: ControlPlane, organization: str) -> Iterator[None]:
    with plane.transaction() as session:
        owner = registry.find(session, organization)
    with alone(owner.id, owner.name):
        yield


def _unread(drawn: Plan) -> Conflict:
    name = drawn.unread[0]
    reason = next(side.detail for side in drawn.sides if side.keystore == name)
    return Conflict(
        f"the keystore {name!r} cannot be read, and may be the one that holds the keys: {reason}",
        hint="make its server reachable; if it is gone for good, leave it out: "
        f"`keystore recover {drawn.organization} --without {name}`",
    )


def _find(plane: ControlPlane, transport: Transport, organization: str, without: Collection[str]) -> _Findings:
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        maintenance.require_no_maintenance(owner)
        query = select(Keystore).where(Keystore.organization_id == owner.id, Keystore.kind != Kind.LEGACY)
        keystores = list(session.scalars(query.order_by(Keystore.id)))
        for name in without:
            keystores_of.find(session, owner, name)
        in_database = keystores_of.active_keystore(session, owner)
    sides = [
        (keystore, _left_out(keystore) if keystore.name in without else _side(plane, transport, owner, keystore))
        for keystore in keystores
    ]
    readable = [(keystore, side) for keystore, side in sides if side.readable]
    if not readable:
        raise Conflict(
            f"no Vault keystore of {organization!r} can be read: "
            + ("; ".join(f"{side.keystore}: {side.detail}" for _, side in sides) or "none is registered"),
            hint="declare the keystores that it had, or make their servers reachable",
        )
    active, chosen = max(readable, key=lambda pair: _rank(owner, *pair))
    if in_database is not None and in_database.kind == Kind.LEGACY and not chosen.was_active:
        raise Conflict(
            f"the keys of {organization!r} are in the provider's database, and no Vault keystore has ever been active",
            hint="there is nothing to recover; move them with `keystore migration start`",
        )
    held = _keys(plane, transport, owner, active) if chosen.keys else {}
    elsewhere: dict[str, Keystore] = {}
    for keystore, side in readable:
        if keystore.id != active.id and side.keys:
            for user, key in _keys(plane, transport, owner, keystore).items():
                if user not in held:
                    held[user], elsewhere[user] = key, keystore
    added, replaced, missing = _compare(plane, owner, held)
    drawn = Plan(
        owner.name, owner.suspended, active.name, tuple(side for _, side in sides),
        Users.of(added), Users.of(replaced), Users.of(set(elsewhere)), Users.of(missing),
        tuple(side.keystore for _, side in sides if not side.readable and side.keystore not in without),
    )  # fmt: skip
    return _Findings(drawn, active, max([side.epoch or 0 for _, side in sides]), held, elsewhere)


def _rank(owner: Organization, keystore: Keystore, side: Side) -> tuple[int, bool, int]:
    """Order keystores by how likely each is the one in use: who remembers the latest decision to have been it."""
    return (side.epoch or 0 if side.was_active else 0, owner.active_keystore_id == keystore.id, side.keys)


def _left_out(keystore: Keystore) -> Side:
    return Side(keystore.name, keystore.address or "", readable=False, detail="left out")


def _side(plane: ControlPlane, transport: Transport, owner: Organization, keystore: Keystore) -> Side:
    address = keystore.address or ""
    with opening.opened(plane, transport, owner, keystore, time.monotonic() + LONGEST_S) as vault:
        try:
            found = checkpoints.remembered(transport, vault)
            keys = sum(bool(KEY_NAME.fullmatch(name)) for page in vault.key_pages(transport) for name in page)
        except KeystoreFault as fault:
            return Side(keystore.name, address, readable=False, detail=str(fault))
    if found is None:
        return Side(keystore.name, address, readable=True, keys=keys)
    return Side(
        keystore.name, address, readable=True, epoch=found.epoch, was_active=found.active, remembered_at=found.at,
        keys=keys,
    )  # fmt: skip


def _keys(
    plane: ControlPlane, transport: Transport, owner: Organization, keystore: Keystore
) -> dict[str, tuple[int, bytes]]:
    """Return generation and fingerprint of every archive key at a keystore, by user: of each the last generation."""
    found: dict[str, tuple[int, bytes]] = {}
    most = plane.settings.keys_per_organization
    with opening.opened(plane, transport, owner, keystore, time.monotonic() + LONGEST_S) as vault:

        def read(name: str) -> Flow[ArchiveKey | None]:
            try:
                record = yield from vault.read(name)
            except DamagedRecordError:
                return None
            return record if record and record.name == name and record.organization == owner.name else None

        for page in vault.key_pages(transport):
            names = (name for name in page if KEY_NAME.fullmatch(name))
            for record in filter(None, transport.run(map(read, names), plane.settings.in_flight)):
                digest = plane.master_key.fingerprint(owner.name, record.user, record.key)
                if record.generation > found.get(record.user, (0, b""))[0]:
                    found[record.user] = (record.generation, digest)
            if len(found) > most:
                raise Unsuitable(
                    f"{vault}: holds more than the {most:,} archive keys that an organization may have",
                    hint="ask the provider, who can raise KEYSTORE_KEYS_PER_ORGANIZATION",
                )
    return found


def _compare(
    plane: ControlPlane, owner: Organization, held: dict[str, tuple[int, bytes]]
) -> tuple[set[str], set[str], set[str]]:
    """Return which users the ledger lacks, for whom it has another key, and whose key was found nowhere."""
    added, replaced, missing = set(held), set(), set()
    for entry in ledger.entries(plane, owner.id):
        added.discard(entry.user)
        if entry.user not in held:
            missing.add(entry.user)
        elif held[entry.user] != (entry.generation, entry.fingerprint):
            replaced.add(entry.user)
    return added, replaced, missing


def _gather(plane: ControlPlane, transport: Transport, owner: Organization, found: _Findings) -> None:
    """Write to the active keystore what lies only at others, and read it back."""
    if not found.elsewhere:
        return
    with opening.opened(plane, transport, owner, found.active) as active:
        for number in {keystore.id for keystore in found.elsewhere.values()}:
            users = [user for user, keystore in found.elsewhere.items() if keystore.id == number]
            with opening.opened(plane, transport, owner, found.elsewhere[users[0]]) as vault:

                def carry(user: str, vault: VaultKeystore = vault) -> Flow[bool]:
                    generation, _ = found.held[user]
                    name = key_name(user, generation)
                    record = yield from vault.read(name)
                    return record is not None and (yield from active.ensure(record)).same_key(record)

                if not all(list(transport.run(map(carry, users), plane.settings.in_flight))):
                    raise KeystoreFault(f"{active}: a key that was written is not read back", hint="try again")


def _take_in(session: Session, owner: Organization, found: _Findings) -> None:
    """Write the keys into the ledger."""
    users = list(found.held)
    for start in range(0, len(users), ledger.PAGE):
        rows = [
            {
                "organization_id": owner.id,
                "user": user,
                "generation": found.held[user][0],
                "fingerprint": found.held[user][1],
                "escrowed_at": now_utc(),
            }
            for user in users[start : start + ledger.PAGE]
        ]
        new = insert(ArchiveKeyEntry)
        changed = {"generation": new.excluded.generation, "fingerprint": new.excluded.fingerprint, "given_up_at": None}
        key = [ArchiveKeyEntry.organization_id, ArchiveKeyEntry.user]
        session.execute(new.on_conflict_do_update(index_elements=key, set_=changed), rows)


def _remember(plane: ControlPlane, transport: Transport, owner: Organization, active: Keystore) -> None:
    """Leave the decision at every keystore, as far as each answers."""
    with plane.transaction() as session:
        query = select(Keystore).where(Keystore.organization_id == owner.id, Keystore.kind != Kind.LEGACY)
        keystores = list(session.scalars(query))
    for keystore in keystores:
        with opening.opened(plane, transport, owner, keystore) as vault:
            checkpoints.offer(plane, transport, vault, owner.id, active=keystore.id == active.id)
