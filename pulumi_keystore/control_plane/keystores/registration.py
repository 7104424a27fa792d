"""The registered keystores of an organization: registration, validated swap, removal (contract: Resources)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, clean_ups, fencing
from pulumi_keystore.control_plane.organizations import history, ledger, maintenance, ownership, registry
from pulumi_keystore.control_plane.runtime.plane import CERTIFICATE_PURPOSE, ControlPlane, tenancy
from pulumi_keystore.control_plane.runtime.tables import Keystore, Organization, as_document
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.keystore import Binding, Declaration
from pulumi_keystore.declarations.names import check_name
from pulumi_keystore.declarations.tenancy import KEY_NAME, Tenancy
from pulumi_keystore.errors import AnotherCluster, Conflict, KeystoreFault, NotFound, Unsuitable
from pulumi_keystore.vault.archive_keys import Proof, VaultKeystore
from pulumi_keystore.vault.checkpoint import Checkpoint, Stamp
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.record import DamagedRecordError, Entry
from pulumi_keystore.vault.transport import Endpoint, Flow, Transport

_SAMPLE: Final = 20
"""How many entries at the most are read to find out whether they are archive keys."""
_NAMED: Final = 5
"""How many users are named whose keys are lacking."""


def find(session: Session, organization: Organization, name: str) -> Keystore:
    """Return a keystore of an organization.

    Raises:
        NotFound: There is none of that name.

    """
    row = _named(session, organization, name) if name.isprintable() else None
    if row is None:
        raise NotFound(
            f"keystore: the organization {organization.name!r} has no {name[:100]!r}",
            hint=f"list them with `keystore list {organization.name}`, or declare a Keystore",
        )
    return row


def _named(session: Session, organization: Organization, name: str) -> Keystore | None:
    return session.scalar(select(Keystore).where(Keystore.organization_id == organization.id, Keystore.name == name))


def list_all(session: Session, organization: Organization) -> list[dict[str, Any]]:
    """Return every keystore of an organization."""
    rows = session.scalars(select(Keystore).where(Keystore.organization_id == organization.id).order_by(Keystore.name))
    return [describe(organization, row) for row in rows]


def describe(organization: Organization, row: Keystore) -> dict[str, Any]:
    """Return what may be shown of a keystore."""
    shown = as_document(
        row, "name", "kind", "address", "mount", "role", "server_ca", "certificate_fingerprint",
        "certificate_not_after", "kv_version", "cluster_id", "revision", "proved_at", "created_at",
    )  # fmt: skip
    return {
        "organization": organization.name,
        **shown,
        "address_display": KeystoreAddress.parse(row.address).display if row.address else None,
        "active": organization.active_keystore_id == row.id,
    }


def put(
    plane: ControlPlane,
    actor: str,
    organization: str,
    name: str,
    declared: Declaration,
    *,
    adopt: bool = False,
    mark: str | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Register a keystore after proving it; the organization's first one becomes active.

    Safe to repeat: what is registered already is returned. Returns the keystore and warnings.

    Raises:
        RuleViolation: A property breaks a rule.
        KeystoreFault: The proof fails.
        Conflict: A keystore of this name has another binding, and `adopt` is not set.

    """
    check_name(name)
    binding = declared.judge(organization)
    warnings = list(binding.certificate.warnings) if binding.certificate else []
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        maintenance.require_cloud(owner)
        existing = _named(session, owner, name)
        if existing is not None:
            _require_kind(existing, binding)
            changes = _differences(existing, binding)
            if not changes:
                return describe(owner, existing), warnings + _take_over(session, actor, existing, mark)
            if not adopt:
                raise Conflict(
                    f"the keystore {name!r} is registered with another {changes[0]}",
                    hint="set adopt=True to take it over and change it to what is declared",
                )
    if existing is not None:
        return swap(plane, actor, organization, name, declared, mark=mark)
    found = _prove(plane, organization, binding)
    with plane.transaction() as session:
        owner = registry.find(session, organization, lock=True)
        if _named(session, owner, name) is not None:
            raise Conflict(
                f"the keystore {name!r} was registered by somebody else meanwhile", hint="look, and try again"
            )
        _require_free(session, owner, binding, found.proof)
        row = Keystore(organization_id=owner.id, name=name, kind=binding.kind, created_at=now_utc(), revision=0)
        row.owner_mark = mark or None
        _bind(plane, owner, row, binding, found.proof)
        session.add(row)
        session.flush()
        first = owner.active_keystore_id is None
        if first:
            owner.active_keystore_id = row.id
        history.append(session, owner.id, actor, "Keystore registered", f"{name}: {_where(row)}")
        keys = ledger.count_keys(session, owner)
        if found.holds_keys and (not keys or found.is_newer_than(owner)):
            reason = f"the keystore {name!r} holds {found.entries:,} entries that this database does not know"
            checkpoints.suspend(session, owner, reason)
        elif first and not keys and found.checkpoint is not None and found.checkpoint.active:
            # Of an organization of this name that was deleted when it held no key any more.
            owner.epoch = max(owner.epoch, found.checkpoint.epoch)
            checkpoints.advance(owner)
        if found.entries:
            warnings.append(
                f"{found.entries:,} entries lie in {found.place}; nothing of them is deleted or written over"
                + (f": run `keystore recover {organization}` to take the archive keys in" if owner.suspended else "")
            )
        return describe(owner, row), warnings


def _take_over(session: Session, actor: str, row: Keystore, mark: str | None) -> list[str]:
    what = f"the keystore {row.name!r}"
    return ownership.take_over(session, actor, row.organization_id, row, mark, what=what, action="Keystore taken over")


def _require_free(
    session: Session, owner: Organization, binding: Binding, proof: Proof | None, but: Keystore | None = None
) -> None:
    """Raise where another keystore of the organization is at the place that a new one was proved at.

    Raises:
        Conflict: Then the clean-up of one would be the end of the other.

    """
    if proof is None:
        return
    query = select(Keystore).where(
        Keystore.organization_id == owner.id, Keystore.cluster_id == proof.cluster_id, Keystore.mount == binding.mount
    )
    for other in session.scalars(query):
        if but is None or other.id != but.id:
            raise Conflict(
                f"the keystore {other.name!r} is at this very place already: mount {binding.mount!r} of the cluster "
                f"{proof.cluster_id}",
                hint=f"use {other.name!r}, or another mount or server",
            )


def swap(
    plane: ControlPlane,
    actor: str,
    organization: str,
    name: str,
    declared: Declaration,
    *,
    mark: str | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Change address, certificate or both after proving the new pair: a validated swap.

    Where the keystore is active, every enrolled key must be there and be the right one. On any failure the old
    pair stays in use, untouched.

    Raises:
        RuleViolation: A property breaks a rule.
        KeystoreFault: The proof fails, or keys are missing: "migrate, do not edit".
        Conflict: The keystore was changed by somebody else meanwhile.

    """
    binding = declared.judge(organization)
    return _swap(plane, actor, organization, name, lambda _owner, _row: binding, mark=mark)


def edit(
    plane: ControlPlane, actor: str, organization: str, name: str, declared: Declaration, *, keep_certificate: bool
) -> tuple[dict[str, Any], list[str]]:
    """Do the same for what a form holds: kind, mount, role, and with `keep_certificate` the certificate, stay."""

    def binding(owner: Organization, row: Keystore) -> Binding:
        rest = replace(declared, kind=row.kind, mount=row.mount, role=row.role)
        return rest.judge(organization, plane.endpoint(owner, row).certificate if keep_certificate else None)

    return _swap(plane, actor, organization, name, binding)


def _swap(
    plane: ControlPlane,
    actor: str,
    organization: str,
    name: str,
    binding_of: Callable[[Organization, Keystore], Binding],
    *,
    accept_cluster: bool = False,
    mark: str | None = None,
) -> tuple[dict[str, Any], list[str]]:
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        _require_changeable(owner)
        row = find(session, owner, name)
        binding = binding_of(owner, row)
        warnings = list(binding.certificate.warnings) if binding.certificate else []
        revision, active = row.revision, owner.active_keystore_id == row.id
        _require_kind(row, binding)
        if not _differences(row, binding) and not accept_cluster:
            return describe(owner, row), warnings + _take_over(session, actor, row, mark)
    # The last key that was enrolled: enrolments under way have come to their end, later ones have higher numbers.
    with plane.transaction() as session:
        maintenance.stop_writes(session, owner.id)
        last = ledger.highest(session, owner.id)
    proof = _prove(plane, organization, binding, owner).proof
    if proof is None:
        return describe(owner, row), warnings
    change = _Change(binding, proof, row)
    if not accept_cluster:
        change.require_cluster(organization)
    if change.moved:
        with plane.transaction() as session:
            _require_room(session, owner, row, change)
    if active:
        warnings += _require_keys(plane, owner, change)
    with plane.transaction() as session:
        # First the gate, then the row: in the order in which enrolments take them.
        maintenance.stop_writes(session, owner.id)
        owner = registry.find(session, organization, lock=True)
        _require_changeable(owner)
        row = find(session, owner, name)
        if row.revision != revision or (owner.active_keystore_id == row.id) != active:
            raise Conflict(f"the keystore {name!r} was changed by somebody else meanwhile", hint="look, and try again")
        _require_room(session, owner, row, change)
        if active and change.elsewhere:
            # What was enrolled since the look began went to where the keystore is now.
            _require_there(plane, owner, change, ledger.since(session, owner.id, last))
            checkpoints.advance(owner)
        before, left = _where(row), plane.vault(owner, row) if active and change.moved else None
        _bind(plane, owner, row, binding, proof)
        warnings += _take_over(session, actor, row, mark)
        history.append(session, owner.id, actor, "Keystore edited", f"{name}: {before} → {_where(row)}")
        shown = describe(owner, row)
    if active and change.elsewhere:
        _remember(plane, owner, row, left)
    return shown, warnings


class _Change:
    """What an edit would change about where a keystore is.

    Args:
        binding: What it would be.
        proof: What was found there.
        row: What it is.

    """

    def __init__(self, binding: Binding, proof: Proof, row: Keystore) -> None:
        self.binding = binding
        self.proof = proof
        self._name, self._address, self._cluster_id = row.name, row.address, row.cluster_id
        self.moved = (proof.cluster_id, binding.mount) != (row.cluster_id, row.mount)
        """Whether it is another place."""
        self.elsewhere = self.moved or str(binding.address) != row.address
        """Whether it may be another server: a snapshot that is restored elsewhere keeps its cluster id."""

    def require_cluster(self, organization: str) -> None:
        """Raise where another cluster answers under the address that stays.

        Raises:
            AnotherCluster: That is accepted by a command of its own.

        """
        if self.proof.cluster_id != self._cluster_id and str(self.binding.address) == self._address:
            raise AnotherCluster(
                f"{self._address}: another Vault cluster answers under this name ({self.proof.cluster_id}, expected "
                f"{self._cluster_id})",
                hint="lead the name back to the right one; or, if the server was rebuilt or replaced on purpose, run "
                f"`keystore accept-cluster {organization} {self._name}`",
            )


def _require_changeable(owner: Organization) -> None:
    maintenance.require_cloud(owner)
    registry.require_known(owner)
    maintenance.require_no_maintenance(owner)


def _require_room(session: Session, owner: Organization, row: Keystore, change: _Change) -> None:
    """Raise where a keystore may not move: its keys have still to be removed, or another one is there."""
    if change.moved:
        clean_ups.require_none(session, row)
        _require_free(session, owner, change.binding, change.proof, row)


def _require_keys(plane: ControlPlane, owner: Organization, change: _Change) -> list[str]:
    """Look for every key where a keystore would be; return a warning where some lack that lack where it is now, too."""
    with _opened(plane, owner.name, change.binding, change.proof) as (transport, vault):
        looked = _look_for(plane, transport, vault, owner, ledger.entries(plane, owner.id))
    if looked.lacking and change.elsewhere:
        raise _lacks(vault, looked, owner)
    # Otherwise it is the same place: that is no reason to go on with a certificate that expires.
    return [_lacks(vault, looked, owner).summary] if looked.lacking else []


def accept_cluster(plane: ControlPlane, actor: str, organization: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """Prove a keystore whose server was rebuilt or replaced, and use the cluster that answers now from then on.

    Raises:
        KeystoreFault: The proof fails, or the keystore is active and keys are missing.
        Conflict: It is a legacy keystore, or was changed meanwhile.

    """

    def binding(owner: Organization, row: Keystore) -> Binding:
        if row.address is None:
            raise Conflict(f"the keystore {name!r} is a legacy keystore", hint="only Vault keystores are on a cluster")
        endpoint = plane.endpoint(owner, row)
        there = tenancy(owner, row)
        return Binding(row.kind, endpoint.address, endpoint.certificate, endpoint.server_ca, there.mount, there.role)

    return _swap(plane, actor, organization, name, binding, accept_cluster=True)


def _remember(plane: ControlPlane, owner: Organization, row: Keystore, left: VaultKeystore | None) -> None:
    """Leave the decision at both places, as far as they let us: the next one that is made there leaves it, too."""
    there = plane.vault(owner, row, announce=fencing.for_leader(plane, row))
    with Transport() as transport:
        for vault, active in ((there, True), (left, False)):
            if vault is not None:
                checkpoints.offer(plane, transport, vault, owner.id, active=active)
                transport.run_one(vault.revoke())


def remove(plane: ControlPlane, actor: str, organization: str, name: str, mark: str | None = None) -> None:
    """Forget a keystore.

    Raises:
        ManagedElsewhere: A Pulumi resource asks that does not manage it any more.
        Conflict: It is active and holds keys, or a clean-up of it is still to be done.
        InMaintenance: A migration is running.

    """
    with plane.transaction() as session:
        owner = registry.find(session, organization, lock=True)
        row = find(session, owner, name)
        # First: what is renamed while a migration runs, say, is not refused, as nothing is removed.
        ownership.require_owned(row, mark, f"the keystore {name!r}")
        registry.require_known(owner)
        maintenance.require_no_maintenance(owner)
        clean_ups.require_none(session, row)
        if owner.active_keystore_id == row.id:
            if keys := ledger.count_keys(session, owner):
                raise Conflict(
                    f"the keystore {name!r} is active and holds {keys:,} archive keys of {organization!r}",
                    hint="migrate them to another keystore first (KeystoreMigration), then delete this one",
                )
            owner.active_keystore_id = None
        session.flush()
        session.delete(row)
        history.append(session, owner.id, actor, "Keystore removed", name)


def _require_kind(row: Keystore, binding: Binding) -> None:
    if row.kind != binding.kind:
        raise Conflict(
            f"kind: the keystore {row.name!r} is {row.kind}", hint="declare it under another name", prop="kind"
        )


def _differences(row: Keystore, binding: Binding) -> list[str]:
    """Return the names of the properties in which a registered keystore is not what is declared."""
    if binding.address is None or binding.certificate is None:
        return []
    pairs = {
        "address": (row.address, str(binding.address)),
        "certificate": (row.certificate_fingerprint, binding.certificate.fingerprint),
        "server_ca": (row.server_ca, binding.server_ca.decode() if binding.server_ca else None),
        "mount": (row.mount, binding.mount),
        "role": (row.role, binding.role),
    }
    return [name for name, (registered, declared) in pairs.items() if registered != declared]


def _bind(plane: ControlPlane, owner: Organization, row: Keystore, binding: Binding, proof: Proof | None) -> None:
    row.revision += 1
    if binding.address is None or binding.certificate is None or proof is None:
        return
    row.address, row.mount, row.role = str(binding.address), binding.mount, binding.role
    row.server_ca = binding.server_ca.decode() if binding.server_ca else None
    row.certificate_pem = binding.certificate.certificate_pem.decode()
    row.certificate_key_sealed = plane.master_key.seal(
        CERTIFICATE_PURPOSE, f"{owner.id}/{row.name}", binding.certificate.key_pem
    )
    row.certificate_fingerprint = binding.certificate.fingerprint
    row.certificate_not_after = binding.certificate.not_after
    row.kv_version, row.cluster_id, row.proved_at = proof.kv_version, proof.cluster_id, now_utc()


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found at a keystore while it was proved."""

    proof: Proof | None = None
    place: Place | None = None
    checkpoint: Checkpoint | None = None
    entries: int = 0
    holds_keys: bool = False

    def is_newer_than(self, owner: Organization) -> bool:
        return Stamp(owner.epoch, owner.epoch_nonce).is_behind(self.checkpoint)


@dataclass(slots=True)
class _Looked:
    """How many keys were looked for, how many are lacking, and the first users whose key is."""

    keys: int = 0
    lacking: int = 0
    users: list[str] = field(default_factory=list)


def _prove(plane: ControlPlane, organization: str, binding: Binding, owner: Organization | None = None) -> _Found:
    """Prove a binding, and find out what lies there where it is new.

    Where the keystore is registered already (of an `owner`), what it remembers is compared with the database instead.
    """
    if binding.address is None or binding.certificate is None:
        return _Found()
    with _opened(plane, organization, binding) as (transport, vault):
        proof = transport.run_one(vault.prove())
        if owner is not None:
            # Tokens that were written down for this place and may still be good are ended.
            fencing.fence(plane, transport, vault, owner.id)
            checkpoints.look(plane, transport, vault, owner.id)
            return _Found(proof)
        return _Found(
            proof,
            vault.place,
            checkpoints.remembered(transport, vault),
            vault.count(transport),
            _holds_keys(transport, vault),
        )


@contextmanager
def _opened(
    plane: ControlPlane, organization: str, binding: Binding, proof: Proof | None = None
) -> Iterator[tuple[Transport, VaultKeystore]]:
    """Lend a keystore that is not registered, or not so; one that was proved is still the one that was."""
    assert binding.address is not None  # noqa: S101 - a legacy keystore is not opened
    assert binding.certificate is not None  # noqa: S101
    endpoint = Endpoint(binding.address, binding.certificate, binding.server_ca, plane.resolver)
    there = Tenancy(organization, binding.mount, binding.role)
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


def _look_for(
    plane: ControlPlane, transport: Transport, vault: VaultKeystore, owner: Organization, wanted: Iterable[Entry]
) -> _Looked:
    """Look for keys; those that were given up do not count as lacking."""

    def lacks(entry: Entry) -> Flow[str | None]:
        try:
            record = yield from vault.read(entry.name)
        except DamagedRecordError:
            record = None
        return None if entry.given_up or ledger.is_enrolled(plane, owner, entry, record) else entry.user

    looked = _Looked()
    for user in transport.run(map(lacks, wanted), plane.settings.in_flight):
        looked.keys += 1
        if user is not None:
            looked.lacking += 1
            if len(looked.users) < _NAMED:
                looked.users.append(user)
    return looked


def _require_there(plane: ControlPlane, owner: Organization, change: _Change, fresh: list[Entry]) -> None:
    """Raise where a key is missing that was enrolled while the others were looked for; the gate is closed."""
    if not fresh:
        return
    with _opened(plane, owner.name, change.binding, change.proof) as (transport, vault):
        lacking = _look_for(plane, transport, vault, owner, fresh).lacking
    if lacking:
        raise Conflict(
            f"archive keys of {owner.name!r} were enrolled meanwhile, and {lacking:,} are not at the new place",
            hint="nothing was changed; migrate instead, or try again when no one enrols",
        )


def _lacks(vault: VaultKeystore, looked: _Looked, owner: Organization) -> Unsuitable:
    shown = ", ".join(looked.users) + (", …" if looked.lacking > len(looked.users) else "")
    return Unsuitable(
        f"{vault}: lacks {looked.lacking:,} of the {looked.keys:,} archive keys of {owner.name!r}: {shown}",
        hint="migrate, do not edit: declare it as a second Keystore and make it the destination of a "
        f"KeystoreMigration; keys that are lost for good are given up with `keystore key give-up {owner.name} USER`",
    )


def _where(row: Keystore) -> str:
    """Return where a keystore is and who we are there, as history tells it."""
    if row.address is None:
        return row.kind
    fingerprint = (row.certificate_fingerprint or "")[:16]
    return f"{row.address}, mount {row.mount}, role {row.role}, certificate {fingerprint}"


def test_connection(plane: ControlPlane, organization: Organization, row: Keystore) -> dict[str, Any]:
    """Log in and make an authorized read; return status, reason and detail (contract: Connection test)."""
    if row.address is None:
        return {"status": "Online", "reason": None, "detail": None}
    vault = plane.vault(organization, row)
    with Transport() as transport:
        try:
            transport.run_one(vault.check_list())
        except KeystoreFault as fault:
            return {"status": "Offline", "reason": fault.reason, "detail": str(fault)}
        finally:
            transport.run_one(vault.revoke())
    return {"status": "Online", "reason": None, "detail": None}
