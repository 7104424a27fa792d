"""A registered keystore is opened for whoever acts on it, and the active one is asked before anything is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Final

from pulumi_keystore.control_plane.keystores import fencing
from pulumi_keystore.control_plane.keystores.removal import ActiveKeystore, ActiveVault, Removal
from pulumi_keystore.control_plane.organizations import history, legacy
from pulumi_keystore.control_plane.organizations.ledger import is_enrolled, of_users, was_destroyed
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.declarations.tenancy import Tenancy
from pulumi_keystore.errors import KeystoreError
from pulumi_keystore.vault.keystore import VaultKeystore
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.record import ArchiveKey
from pulumi_keystore.vault.requests import Endpoint, Flow
from pulumi_keystore.vault.session import Announce
from pulumi_keystore.vault.transport import Transport

CERTIFICATE_PURPOSE = "client-certificate"
PATIENCE_S: Final = 5.0
"""For how long a keystore that asks for fewer requests is asked again where somebody waits for the outcome."""


def tenancy(organization: Organization, keystore: Keystore) -> Tenancy:
    """Return the organization's place in a registered Vault keystore."""
    return Tenancy(organization.name, keystore.mount or "", keystore.role or "", keystore.namespace)


def place(organization: Organization, keystore: Keystore) -> Place | None:
    """Return the place of a registered keystore; None for a legacy one."""
    if keystore.cluster_id is None or keystore.path is None:
        return None
    return Place(keystore.cluster_id, keystore.path, organization.name)


def endpoint_of(plane: ControlPlane, organization: Organization, keystore: Keystore) -> Endpoint:
    """Return where a registered Vault keystore is, with its certificate opened."""
    if keystore.address is None or keystore.certificate_pem is None or keystore.certificate_key_sealed is None:
        raise KeystoreError(f"the keystore {keystore.name!r} has no address")
    key = plane.master_key.open(
        CERTIFICATE_PURPOSE, f"{organization.id}/{keystore.name}", keystore.certificate_key_sealed
    )
    return Endpoint(
        KeystoreAddress.parse(keystore.address),
        ClientCertificate.from_pem(keystore.certificate_pem.encode(), key),
        keystore.server_ca.encode() if keystore.server_ca else None,
        plane.resolver,
    )


def vault_of(
    plane: ControlPlane,
    organization: Organization,
    keystore: Keystore,
    *,
    retry_for_s: float = 0,
    announce: Announce | None = None,
    path: str | None = None,
    cluster_id: str | None = None,
    until: float = inf,
) -> VaultKeystore:
    """Return a registered Vault keystore, ready for use; see there for what can be told it.

    `path` and `cluster_id` are those of a place that it is reached for, where that is not the one in use.
    """
    return VaultKeystore(
        endpoint_of(plane, organization, keystore),
        tenancy(organization, keystore),
        path=path,
        retry_for_s=retry_for_s,
        timeout_s=plane.settings.request_s,
        kv_version=keystore.kv_version,
        cluster_id=cluster_id or keystore.cluster_id,
        announce=announce,
        until=until,
    )


@dataclass(frozen=True, slots=True)
class Witness:
    """The active keystore, asked before anything is deleted elsewhere; `vault` is None for a legacy one."""

    keystore: ActiveKeystore
    vault: VaultKeystore | None


@contextmanager
def witness(
    plane: ControlPlane, transport: Transport, owner: Organization, active: Keystore, until: float = inf
) -> Iterator[Witness]:
    """Lend the active keystore; history tells of keys that it was given meanwhile, however the work ends."""
    if active.kind == Kind.LEGACY:
        yield Witness(_LegacyWitness(plane, owner), None)
        return
    with opened(plane, transport, owner, active, until) as vault:
        asked = ActiveVault(vault, lambda record: _is_in_ledger(plane, owner, record))
        try:
            yield Witness(asked, vault)
        finally:
            if asked.restored:
                _tell_restored(plane, owner, active, asked.restored)


def removal(
    plane: ControlPlane,
    transport: Transport,
    owner: Organization,
    at: VaultKeystore,
    witness: Witness,
    *,
    undisturbed: Callable[[], AbstractContextManager[None]] | None = None,
) -> Removal:
    """Return what removes the organization's keys at a place; `undisturbed` where the gate is closed already."""
    return Removal(
        transport,
        at,
        witness.keystore,
        plane.settings.in_flight,
        destroyed=lambda record: was_destroyed(plane, owner, record),
        undisturbed=undisturbed or (lambda: plane.gate.closed(owner.id)),
    )


def _tell_restored(plane: ControlPlane, owner: Organization, active: Keystore, keys: int) -> None:
    detail = f"{active.name} ({active.address}): {count(keys, 'key')} that it lacked written there from other copies"
    with plane.transaction() as session:
        history.append(session, owner.id, history.SYSTEM, "Keys restored", detail)


@contextmanager
def opened(
    plane: ControlPlane, transport: Transport, owner: Organization, keystore: Keystore, until: float = inf
) -> Iterator[VaultKeystore]:
    """Lend a registered Vault keystore to the leading service, with patience for one that asks for fewer requests."""
    retry_s = min(plane.settings.retry_s, PATIENCE_S)
    announce = fencing.for_leader(plane, keystore)
    vault = vault_of(plane, owner, keystore, retry_for_s=retry_s, announce=announce, until=until)
    try:
        yield vault
    finally:
        transport.run_one(vault.revoke())


def _is_in_ledger(plane: ControlPlane, owner: Organization, record: ArchiveKey) -> bool:
    with plane.transaction() as session:
        entry = of_users(session, owner.id, [record.user]).get(record.user)
    return entry is not None and is_enrolled(plane, owner, entry, record)


@dataclass(frozen=True, slots=True)
class _LegacyWitness:
    """The rows of a legacy keystore; nothing is ever written there."""

    plane: ControlPlane
    owner: Organization
    place: None = None

    def require(self) -> Flow[None]:
        """Do nothing: it is in this very database."""
        yield from ()

    def same(self, record: ArchiveKey) -> Flow[ArchiveKey | None]:
        """Return the key of the record's user."""
        yield from ()
        with self.plane.transaction() as session:
            return legacy.of_user(self.plane, session, self.owner, record.user, record.generation)

    def has_enrolled(self, name: str) -> Flow[bool]:
        """Say no: a copy that is not the key of a row stays where it is."""
        del name
        yield from ()
        return False

    def keep(self, record: ArchiveKey) -> Flow[None]:
        """Write nothing: a record that is not among the rows stays where it is."""
        del record
        yield from ()
