"""Whether a keystore can be relied on, and what lies in it, before it counts (contract: Safety)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from pulumi_keystore.control_plane.keystores import checkpoints, fencing, opening
from pulumi_keystore.control_plane.organizations import ledger
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.keystore import Binding
from pulumi_keystore.declarations.tenancy import KEY_NAME
from pulumi_keystore.errors import KeystoreFault, Unsuitable
from pulumi_keystore.vault.checkpoint import Checkpoint, Stamp
from pulumi_keystore.vault.keystore import Proof, VaultKeystore
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.record import DamagedRecordError, Entry
from pulumi_keystore.vault.requests import Endpoint, Flow
from pulumi_keystore.vault.transport import Transport

_SAMPLE: Final = 20
"""How many entries at the most are read to find out whether they are archive keys."""
_NAMED: Final = 5
"""How many users are named whose keys are lacking."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at a keystore while it was proved."""

    proof: Proof | None = None
    place: Place | None = None
    checkpoint: Checkpoint | None = None
    entries: int = 0
    holds_keys: bool = False

    def is_newer_than(self, owner: Organization) -> bool:
        """Tell whether what the keystore remembers was decided after what the database knows."""
        return Stamp(owner.epoch, owner.epoch_nonce).is_behind(self.checkpoint)


@dataclass(slots=True)
class Looked:
    """How many keys were looked for, how many are lacking, and the first users whose key is."""

    keys: int = 0
    lacking: int = 0
    users: list[str] = field(default_factory=list)


def prove(plane: ControlPlane, organization: str, binding: Binding, owner: Organization | None = None) -> Found:
    """Prove a binding, and find out what lies there where it is new.

    Where the keystore is registered already (of an `owner`), what it remembers is compared with the database instead.
    """
    if binding.address is None or binding.certificate is None:
        return Found()
    with lent(plane, organization, binding) as (transport, vault):
        proof = transport.run_one(vault.prove())
        if owner is not None:
            # Tokens that were written down for this place and may still be good are ended.
            fencing.fence(plane, transport, vault, owner.id)
            checkpoints.look(plane, transport, vault, owner.id)
            return Found(proof)
        return Found(
            proof,
            vault.place,
            checkpoints.remembered(transport, vault),
            vault.count(transport),
            _holds_keys(transport, vault),
        )


@contextmanager
def lent(
    plane: ControlPlane, organization: str, binding: Binding, proof: Proof | None = None
) -> Iterator[tuple[Transport, VaultKeystore]]:
    """Lend a keystore that is not registered, or not so; one that was proved is still the one that was."""
    assert binding.address is not None  # noqa: S101 - a legacy keystore is not opened
    assert binding.certificate is not None  # noqa: S101
    endpoint = Endpoint(binding.address, binding.certificate, binding.server_ca, plane.resolver)
    there = binding.tenancy(organization)
    version, cluster_id = (proof.kv_version, proof.cluster_id) if proof else (None, None)
    timeout_s = plane.settings.request_s
    vault = VaultKeystore(endpoint, there, timeout_s=timeout_s, kv_version=version, cluster_id=cluster_id)
    with Transport() as transport:
        try:
            yield transport, vault
        except DamagedRecordError as damage:
            raise Unsuitable(f"{vault}: {damage}", hint="check the server's storage") from None
        finally:
            transport.run_one(vault.revoke())


def _holds_keys(transport: Transport, vault: VaultKeystore) -> bool:
    """Tell whether at least one of the first entries is an archive key of this organization."""
    names = [name for name in transport.run_one(vault.names()) if KEY_NAME.fullmatch(name)]
    for name in names[:_SAMPLE]:
        with suppress(DamagedRecordError):
            record = transport.run_one(vault.read(name))
            if record is not None and record.organization == vault.tenancy.organization:
                return True
    return False


def look_for(
    plane: ControlPlane, transport: Transport, vault: VaultKeystore, owner: Organization, wanted: Iterable[Entry]
) -> Looked:
    """Look for keys; those that were given up do not count as lacking."""

    def lacks(entry: Entry) -> Flow[str | None]:
        try:
            record = yield from vault.read(entry.name)
        except DamagedRecordError:
            record = None
        return None if entry.given_up or ledger.is_enrolled(plane, owner, entry, record) else entry.user

    looked = Looked()
    for user in transport.run(map(lacks, wanted), plane.settings.in_flight):
        looked.keys += 1
        if user is not None:
            looked.lacking += 1
            if len(looked.users) < _NAMED:
                looked.users.append(user)
    return looked


def lacks(vault: VaultKeystore, looked: Looked, owner: Organization) -> Unsuitable:
    """Return the fault of a keystore that lacks keys, with whose they are."""
    shown = ", ".join(looked.users) + (", …" if looked.lacking > len(looked.users) else "")
    return Unsuitable(
        f"{vault}: lacks {looked.lacking:,} of the {looked.keys:,} archive keys of {owner.name!r}: {shown}",
        hint="migrate, do not edit: declare it as a second Keystore and make it the destination of a "
        f"KeystoreMigration; keys that are lost for good are given up with `keystore key give-up {owner.name} USER`",
    )


def where(row: Keystore) -> str:
    """Return where a keystore is and who we are there, as history tells it."""
    if row.address is None:
        return row.kind
    fingerprint = (row.certificate_fingerprint or "")[:16]
    namespace = f"namespace {row.namespace}, " if row.namespace else ""
    return f"{row.address}, {namespace}mount {row.mount}, role {row.role}, certificate {fingerprint}"


def unreachable(plane: ControlPlane, organization: Organization, row: Keystore) -> str | None:
    """Return why a keystore cannot be logged in to and listed just now; None where it can."""
    if row.address is None:
        return None
    vault = opening.vault_of(plane, organization, row)
    with Transport() as transport:
        try:
            transport.run_one(vault.check_list())
        except KeystoreFault as fault:
            return str(fault)
        finally:
            transport.run_one(vault.revoke())
    return None
