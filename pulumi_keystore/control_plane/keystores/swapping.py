"""The validated swap: what a keystore is bound to changes once the new binding is proved (contract: Resources)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from pulumi_keystore import failpoints
from pulumi_keystore.answers import KeystoreAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, clean_ups, fencing, opening
from pulumi_keystore.control_plane.keystores.binding import (
    bind,
    differences,
    proved_place,
    require_changeable,
    require_free,
    require_kind,
    take_over,
)
from pulumi_keystore.control_plane.keystores.proving import lacks, lent, look_for, prove, where
from pulumi_keystore.control_plane.organizations import history, ledger, registry
from pulumi_keystore.control_plane.organizations.keystores import describe, find
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.keystore import Binding, Declaration
from pulumi_keystore.errors import AnotherCluster, Conflict, InvalidInput
from pulumi_keystore.vault.keystore import Proof, VaultKeystore
from pulumi_keystore.vault.record import Entry
from pulumi_keystore.vault.transport import Transport


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
    return swap_to(plane, actor, organization, name, lambda _owner, _row: binding, mark=mark)


@dataclass(frozen=True, slots=True)
class Edit:
    """What a person changes of a keystore; what is None stays. Certificate and password are in no repr.

    Attributes:
        address: https://HOST:PORT.
        certificate: Base64 of a PKCS#12 file.
        certificate_password: Its export password.
        server_ca: CA certificates in PEM; empty for the public CAs.

    """

    address: str | None = None
    certificate: str | None = field(default=None, repr=False)
    certificate_password: str | None = field(default=None, repr=False)
    server_ca: str | None = None


def edit(
    plane: ControlPlane, actor: str, organization: str, name: str, wanted: Edit
) -> tuple[KeystoreAnswer, list[str]]:
    """Do the same for what a person changes; kind and place stay.

    Raises:
        InvalidInput: A password was given and no file.
        Conflict: It is a legacy keystore. And what `swap` raises.

    """
    return swap_to(plane, actor, organization, name, _as_edited(plane, organization, wanted))


@dataclass(frozen=True, slots=True)
class Verified:
    """What an edit was verified to lead to, for a person to confirm; `keys` is how many were found equal there.

    `keys` is None for a keystore that is not in use, where none are looked for.
    """

    address: str
    changes: tuple[str, ...]
    subject: str
    fingerprint: str
    not_after: datetime
    cluster_id: str
    server_version: str
    keys: int | None
    warnings: tuple[str, ...]


def verify_edit(plane: ControlPlane, organization: str, name: str, wanted: Edit) -> Verified:
    """Prove what an edit would lead to, and change nothing. The edit proves it again: a server may change meanwhile.

    Raises:
        InvalidInput, RuleViolation, KeystoreFault, Conflict: As `edit`.

    """
    owner, row = _changeable(plane, organization, name)
    binding = _as_edited(plane, organization, wanted)(owner, row)
    require_kind(row, binding)
    assert binding.address is not None  # noqa: S101 - a legacy keystore is not edited
    assert binding.certificate is not None  # noqa: S101
    proof = prove(plane, organization, binding, owner).proof
    assert proof is not None  # noqa: S101 - it is on a Vault server
    change = _Change(owner, binding, proof, row)
    change.require_cluster(organization)
    warnings = list(binding.certificate.warnings)
    with plane.transaction() as session:
        _require_room(session, owner, row, change)
        active = owner.active_keystore_id == row.id
        keys = ledger.count_keys(session, owner) if active else None
    if active:
        warnings += _require_keys(plane, owner, change)
    return Verified(
        str(binding.address),
        tuple(differences(row, binding)),
        binding.certificate.subject,
        binding.certificate.fingerprint,
        binding.certificate.not_after,
        proof.cluster_id,
        proof.server_version,
        keys,
        tuple(warnings),
    )


def _as_edited(plane: ControlPlane, organization: str, wanted: Edit) -> Callable[[Organization, Keystore], Binding]:
    """Return what makes the new binding of a keystore from the old one.

    Raises:
        InvalidInput: A password was given and no file.

    """
    if wanted.certificate_password and not wanted.certificate:
        raise InvalidInput(
            "certificate: a password was given without a file", hint="also give the PKCS#12 file", prop="certificate"
        )

    def binding(owner: Organization, row: Keystore) -> Binding:
        bound = _as_it_is(plane, owner, row)
        declared = Declaration(
            kind=row.kind,
            address=row.address if wanted.address is None else wanted.address,
            certificate=wanted.certificate,
            certificate_password=wanted.certificate_password,
            server_ca=row.server_ca if wanted.server_ca is None else wanted.server_ca or None,
            mount=row.mount,
            role=row.role,
            namespace=row.namespace,
        )
        return declared.judge(organization, None if wanted.certificate else bound.certificate)

    return binding


def prove_again(plane: ControlPlane, actor: str, organization: str, name: str) -> KeystoreAnswer:
    """Prove a keystore as it is registered: writing, reading, listing and deleting, and that its tokens end.

    Raises:
        KeystoreFault: It cannot be relied on.
        Conflict: It is a legacy keystore.

    """
    return swap_to(plane, actor, organization, name, lambda owner, row: _as_it_is(plane, owner, row))[0]


def accept_cluster(plane: ControlPlane, actor: str, organization: str, name: str) -> tuple[KeystoreAnswer, list[str]]:
    """Prove a keystore whose server was rebuilt or replaced, and use the cluster that answers now from then on.

    Raises:
        KeystoreFault: The proof fails, or the keystore is active and keys are missing.
        Conflict: It is a legacy keystore, or was changed meanwhile.

    """
    return swap_to(
        plane, actor, organization, name, lambda owner, row: _as_it_is(plane, owner, row), accept_cluster=True
    )


def _as_it_is(plane: ControlPlane, owner: Organization, row: Keystore) -> Binding:
    """Return what a keystore is bound to."""
    if row.address is None:
        raise Conflict(
            f"the keystore {row.name!r} is a legacy keystore, in the provider's database",
            hint="only keystores on a Vault server are proved and edited",
        )
    endpoint, there = opening.endpoint_of(plane, owner, row), opening.tenancy(owner, row)
    return Binding(
        row.kind, endpoint.address, endpoint.certificate, endpoint.server_ca, there.mount, there.role, there.namespace
    )


def swap_to(
    plane: ControlPlane,
    actor: str,
    organization: str,
    name: str,
    binding_of: Callable[[Organization, Keystore], Binding],
    *,
    accept_cluster: bool = False,
    mark: str | None = None,
) -> tuple[KeystoreAnswer, list[str]]:
    """Do so for what `binding_of` makes of the organization and its keystore."""
    owner, row = _changeable(plane, organization, name)
    # A file may have to be opened for it, which takes a while.
    binding = binding_of(owner, row)
    warnings = list(binding.certificate.warnings) if binding.certificate else []
    revision, active = row.revision, owner.active_keystore_id == row.id
    require_kind(row, binding)
    if not differences(row, binding) and not accept_cluster:
        shown, told = _prove_again(plane, actor, owner, row, binding, mark)
        return shown, warnings + told
    # The last key that was enrolled: enrolments under way have come to their end, later ones have higher numbers.
    with plane.gate.closed(owner.id), plane.transaction() as session:
        last = ledger.highest(session, owner.id)
    proof = prove(plane, organization, binding, owner).proof
    if proof is None:
        return describe(owner, row), warnings
    failpoints.reach("swap.proved")
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
        failpoints.reach("swap.decided")
        with plane.transaction() as session:
            owner = registry.find(session, organization, lock=True)
            require_changeable(owner)
            row = find(session, owner, name)
            if row.revision != revision or (owner.active_keystore_id == row.id) != active:
                raise Conflict(
                    f"the keystore {name!r} was changed by another request meanwhile",
                    hint="check its current state and try again",
                )
            _require_room(session, owner, row, change)
            if active and change.elsewhere:
                checkpoints.advance(owner)
            before, left = where(row), opening.vault_of(plane, owner, row) if active and change.moved else None
            bind(plane, owner, row, binding, proof)
            warnings += take_over(session, actor, row, mark)
            history.append(session, owner.id, actor, "Keystore edited", f"{name}: {before} → {where(row)}")
            shown = describe(owner, row)
    failpoints.reach("swap.bound")
    if active and change.elsewhere:
        _remember(plane, owner, row, left)
    return shown, warnings


def _changeable(plane: ControlPlane, organization: str, name: str) -> tuple[Organization, Keystore]:
    """Return an organization in which something may be changed, and a keystore of it."""
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        require_changeable(owner)
        return owner, find(session, owner, name)


def _prove_again(
    plane: ControlPlane, actor: str, owner: Organization, row: Keystore, binding: Binding, mark: str | None
) -> tuple[KeystoreAnswer, list[str]]:
    """Prove what is in use already: who swaps is told that it works, or why not, also where nothing changes."""
    proof, revision = prove(plane, owner.name, binding, owner).proof, row.revision
    if proof is not None:
        _Change(owner, binding, proof, row).require_cluster(owner.name)
    with plane.transaction() as session:
        row = find(session, owner, row.name)
        if proof is not None and row.revision == revision:
            row.proved_at = now_utc()
        return describe(owner, row), take_over(session, actor, row, mark)


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
        self.moved = proved_place(owner, binding, proof) != opening.place(owner, row)
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
                hint="point the DNS name back to the original cluster; or, if the server was rebuilt or replaced on "
                f"purpose, run `keystore accept-cluster {organization} {self._name}`",
            )


def _require_room(session: Session, owner: Organization, row: Keystore, change: _Change) -> None:
    """Raise where a keystore may not move: its keys have still to be removed, or another one is there."""
    if change.moved:
        clean_ups.require_none(session, row)
        require_free(session, owner, change.binding, change.proof, row)


def _require_keys(plane: ControlPlane, owner: Organization, change: _Change) -> list[str]:
    """Look for every key where a keystore would be; return a warning where some lack that lack where it is now, too."""
    with lent(plane, owner.name, change.binding, change.proof) as (transport, vault):
        looked = look_for(plane, transport, vault, owner, ledger.entries(plane, owner.id))
    if looked.lacking and change.elsewhere:
        raise lacks(vault, looked, owner)
    # Otherwise it is the same place: that is no reason to go on with a certificate that expires.
    return [lacks(vault, looked, owner).summary] if looked.lacking else []


def _require_there(plane: ControlPlane, owner: Organization, change: _Change, fresh: list[Entry]) -> None:
    """Raise where a key is missing that was enrolled while the others were looked for; the gate is closed."""
    if not fresh:
        return
    with lent(plane, owner.name, change.binding, change.proof) as (transport, vault):
        lacking = look_for(plane, transport, vault, owner, fresh).lacking
    if lacking:
        raise Conflict(
            f"archive keys of {owner.name!r} were enrolled meanwhile, and {lacking:,} are not at the new place",
            hint="nothing was changed; migrate instead, or try again when no one enrols",
        )


def _remember(plane: ControlPlane, owner: Organization, row: Keystore, left: VaultKeystore | None) -> None:
    """Leave the decision at both places, as far as they let us: the next one that is made there leaves it, too."""
    there = opening.vault_of(plane, owner, row, announce=fencing.for_leader(plane, row))
    with Transport() as transport:
        for vault, active in ((there, True), (left, False)):
            if vault is not None:
                checkpoints.offer(plane, transport, vault, owner.id, active=active)
                transport.run_one(vault.revoke())
