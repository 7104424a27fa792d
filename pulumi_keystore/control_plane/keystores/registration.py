"""The registered keystores of an organization: registration, validated swap, removal (contract: Resources)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pulumi_keystore.answers import KeystoreAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, clean_ups, fencing, opening
from pulumi_keystore.control_plane.keystores.opening import CERTIFICATE_PURPOSE, tenancy
from pulumi_keystore.control_plane.keystores.proving import _lacks, _look_for, _opened, _prove, _where
from pulumi_keystore.control_plane.organizations import history, ledger, maintenance, ownership, registry
from pulumi_keystore.control_plane.organizations.keystores import describe, find, named
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.keystore import Binding, Declaration
from pulumi_keystore.declarations.names import check_name
from pulumi_keystore.errors import AnotherCluster, Conflict, TooManyRequests, Unsuitable
from pulumi_keystore.vault.keystore import Proof, VaultKeystore
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.record import Entry
from pulumi_keystore.vault.transport import Transport


def put(
    plane: ControlPlane,
    actor: str,
    organization: str,
    name: str,
    declared: Declaration,
    *,
    adopt: bool = False,
    mark: str | None = None,
) -> tuple[KeystoreAnswer, list[str]]:
    """Register a keystore after proving it; the organization's first one becomes active.

    Safe to repeat: what is registered already is returned. Returns the keystore and warnings.

    Raises:
        RuleViolation: A property breaks a rule.
        KeystoreFault: The proof fails.
        Conflict: A keystore of this name has another binding, and `adopt` is not set.
        TooManyRequests: The organization has as many keystores as it may have.

    """
    check_name(name)
    binding = declared.judge(organization)
    warnings = list(binding.certificate.warnings) if binding.certificate else []
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        maintenance.require_cloud(owner)
        existing = named(session, owner, name)
        _require_quota(session, plane, owner, existing)
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
        return _swap(plane, actor, organization, name, lambda _owner, _row: binding, mark=mark)
    found = _prove(plane, organization, binding)
    with plane.transaction() as session:
        owner = registry.find(session, organization, lock=True)
        if named(session, owner, name) is not None:
            raise Conflict(
                f"the keystore {name!r} was registered by another request meanwhile",
                hint="check its current state and try again",
            )
        _require_free(session, owner, binding, found.proof)
        row = Keystore(
            organization_id=owner.id, name=name, kind=binding.kind, namespace="", created_at=now_utc(), revision=0
        )
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


def _require_quota(session: Session, plane: ControlPlane, owner: Organization, existing: Keystore | None) -> None:
    if existing is not None:
        return
    most = plane.settings.keystores_per_organization
    query = select(func.count()).where(Keystore.organization_id == owner.id)
    if (session.scalar(query) or 0) >= most:
        raise TooManyRequests(
            f"the organization {owner.name!r} has {most} keystores, and may not have more",
            hint="delete those that nobody uses any more",
        )


def rehearse(plane: ControlPlane, organization: str, name: str, declared: Declaration) -> tuple[Binding, Proof | None]:
    """Prove a new keystore as `put` would, and register nothing.

    Raises:
        RuleViolation: A property breaks a rule.
        KeystoreFault: The proof fails.
        Conflict: There is a keystore of this name, or at this place, already.
        Unsuitable: Something lies there.

    """
    check_name(name)
    binding = declared.judge(organization)
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        _require_changeable(owner)
        if named(session, owner, name) is not None:
            raise Conflict(f"there is a keystore {name!r} already", hint="choose it, or another name", prop="name")
    found = _prove(plane, organization, binding)
    with plane.transaction() as session:
        _require_free(session, owner, binding, found.proof)
    if found.entries:
        raise Unsuitable(
            f"{binding.address}: {found.place} holds {found.entries:,} entries already",
            hint="nothing is written over: find out whose they are; if in doubt, use another mount or server",
        )
    return binding, found.proof


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
    there = Place(proof.cluster_id, binding.tenancy(owner.name).path, owner.name)
    for other in session.scalars(select(Keystore).where(Keystore.organization_id == owner.id)):
        if opening.place(owner, other) == there and (but is None or other.id != but.id):
            raise Conflict(
                f"the keystore {other.name!r} is at this very place already: {there}",
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
) -> tuple[KeystoreAnswer, list[str]]:
    """Change address, certificate or both after proving the new pair: a validated swap.

    Where the keystore is active, every enrolled key must be there and be the right one. On any failure the old
    pair stays in use, untouched.

    Raises:
        RuleViolation: A property breaks a rule.
        KeystoreFault: The proof fails, or keys are missing: "migrate, do not edit".
        Conflict: The keystore was changed by another request meanwhile.

    """
    binding = declared.judge(organization)
    return _swap(plane, actor, organization, name, lambda _owner, _row: binding, mark=mark)


def edit(
    plane: ControlPlane, actor: str, organization: str, name: str, declared: Declaration, *, keep_certificate: bool
) -> tuple[KeystoreAnswer, list[str]]:
    """Do the same for what a form holds: kind, place, role, and with `keep_certificate` the certificate, stay."""

    def binding(owner: Organization, row: Keystore) -> Binding:
        rest = replace(declared, kind=row.kind, mount=row.mount, role=row.role, namespace=row.namespace)
        return rest.judge(
            organization, opening.endpoint_of(plane, owner, row).certificate if keep_certificate else None
        )

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
) -> tuple[KeystoreAnswer, list[str]]:
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        _require_changeable(owner)
        row = find(session, owner, name)
    # A file may have to be opened for it, which takes a while.
    binding = binding_of(owner, row)
    warnings = list(binding.certificate.warnings) if binding.certificate else []
    revision, active = row.revision, owner.active_keystore_id == row.id
    _require_kind(row, binding)
    if not _differences(row, binding) and not accept_cluster:
        _prove_again(plane, owner, row, binding)
        with plane.transaction() as session:
            row = find(session, owner, name)
            return describe(owner, row), warnings + _take_over(session, actor, row, mark)
    # The last key that was enrolled: enrolments under way have come to their end, later ones have higher numbers.
    with plane.gate.closed(owner.id), plane.transaction() as session:
        last = ledger.highest(session, owner.id)
    proof = _prove(plane, organization, binding, owner).proof
    if proof is None:
        return describe(owner, row), warnings
    change = _Change(owner, binding, proof, row)
    if not accept_cluster:
        change.require_cluster(organization)
    if change.moved:
        with plane.transaction() as session:
            _require_room(session, owner, row, change)
    if active:
        warnings += _require_keys(plane, owner, change)
    with plane.gate.closed(owner.id):
        if active and change.elsewhere:
            # What was enrolled since the look began went to where the keystore is now.
            with plane.transaction() as session:
                fresh = ledger.since(session, owner.id, last)
            _require_there(plane, owner, change, fresh)
        with plane.transaction() as session:
            owner = registry.find(session, organization, lock=True)
            _require_changeable(owner)
            row = find(session, owner, name)
            if row.revision != revision or (owner.active_keystore_id == row.id) != active:
                raise Conflict(
                    f"the keystore {name!r} was changed by another request meanwhile",
                    hint="check its current state and try again",
                )
            _require_room(session, owner, row, change)
            if active and change.elsewhere:
                checkpoints.advance(owner)
            before, left = _where(row), opening.vault_of(plane, owner, row) if active and change.moved else None
            _bind(plane, owner, row, binding, proof)
            warnings += _take_over(session, actor, row, mark)
            history.append(session, owner.id, actor, "Keystore edited", f"{name}: {before} → {_where(row)}")
            shown = describe(owner, row)
    if active and change.elsewhere:
        _remember(plane, owner, row, left)
    return shown, warnings


def _prove_again(plane: ControlPlane, owner: Organization, row: Keystore, binding: Binding) -> None:
    """Prove what is in use already: who swaps is told that it works, or why not, also where nothing changes."""
    if (proof := _prove(plane, owner.name, binding, owner).proof) is not None:
        _Change(binding, proof, row).require_cluster(owner.name)


class _Change:
    """What an edit would change about where a keystore is.

    Args:
        owner: Whose keystore it is.
        binding: What it would be.
        proof: What was found there.
        row: What it is.

    """

    def __init__(self, owner: Organization, binding: Binding, proof: Proof, row: Keystore) -> None:
        self.binding = binding
        self.proof = proof
        self._name, self._address, self._cluster_id = row.name, row.address, row.cluster_id
        self.moved = Place(proof.cluster_id, binding.tenancy(owner.name).path, owner.name) != opening.place(owner, row)
        """Whether it is another place."""
        spelled_anew = (binding.namespace, binding.mount) != (row.namespace, row.mount)
        self.elsewhere = self.moved or spelled_anew or str(binding.address) != row.address
        """Whether it may be elsewhere: a snapshot keeps its cluster id, and a server may read a path in its own way."""

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


def accept_cluster(plane: ControlPlane, actor: str, organization: str, name: str) -> tuple[KeystoreAnswer, list[str]]:
    """Prove a keystore whose server was rebuilt or replaced, and use the cluster that answers now from then on.

    Raises:
        KeystoreFault: The proof fails, or the keystore is active and keys are missing.
        Conflict: It is a legacy keystore, or was changed meanwhile.

    """

    def binding(owner: Organization, row: Keystore) -> Binding:
        if row.address is None:
            raise Conflict(f"the keystore {name!r} is a legacy keystore", hint="only Vault keystores are on a cluster")
        endpoint = opening.endpoint_of(plane, owner, row)
        there = tenancy(owner, row)
        return Binding(
            row.kind,
            endpoint.address,
            endpoint.certificate,
            endpoint.server_ca,
            there.mount,
            there.role,
            there.namespace,
        )

    return _swap(plane, actor, organization, name, binding, accept_cluster=True)


def _remember(plane: ControlPlane, owner: Organization, row: Keystore, left: VaultKeystore | None) -> None:
    """Leave the decision at both places, as far as they let us: the next one that is made there leaves it, too."""
    there = opening.vault_of(plane, owner, row, announce=fencing.for_leader(plane, row))
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
        # All that the file holds: a server may need the certificates between the leaf and the CA it knows.
        "certificate": (row.certificate_pem, binding.certificate.certificate_pem.decode()),
        "server_ca": (row.server_ca, binding.server_ca.decode() if binding.server_ca else None),
        "namespace": (row.namespace, binding.namespace),
        "mount": (row.mount, binding.mount),
        "role": (row.role, binding.role),
    }
    return [name for name, (registered, declared) in pairs.items() if registered != declared]


def _bind(plane: ControlPlane, owner: Organization, row: Keystore, binding: Binding, proof: Proof | None) -> None:
    row.revision += 1
    if binding.address is None or binding.certificate is None or proof is None:
        return
    row.address, row.role = str(binding.address), binding.role
    row.namespace, row.mount = binding.namespace, binding.mount
    row.server_ca = binding.server_ca.decode() if binding.server_ca else None
    row.certificate_pem = binding.certificate.certificate_pem.decode()
    row.certificate_key_sealed = plane.master_key.seal(
        CERTIFICATE_PURPOSE, f"{owner.id}/{row.name}", binding.certificate.key_pem
    )
    row.certificate_fingerprint = binding.certificate.fingerprint
    row.certificate_not_after = binding.certificate.not_after
    row.kv_version, row.cluster_id, row.proved_at = proof.kv_version, proof.cluster_id, now_utc()


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
