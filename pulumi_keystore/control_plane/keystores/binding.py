"""What a registered keystore is bound to: server, certificate and place, and whether that may change."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import opening
from pulumi_keystore.control_plane.keystores.opening import CERTIFICATE_PURPOSE
from pulumi_keystore.control_plane.organizations import maintenance, ownership, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.keystore import Binding
from pulumi_keystore.errors import Conflict
from pulumi_keystore.vault.keystore import Proof
from pulumi_keystore.vault.place import Place


def require_changeable(owner: Organization) -> None:
    """Raise where nothing of the organization may change: a migration runs, or its keys are not known."""
    maintenance.require_cloud(owner)
    registry.require_known(owner)
    maintenance.require_no_maintenance(owner)


def require_kind(row: Keystore, binding: Binding) -> None:
    """Raise where a keystore would become one of another kind."""
    if row.kind != binding.kind:
        raise Conflict(
            f"kind: {row.name!r} is a {row.kind} keystore", hint="declare it under another name", prop="kind"
        )


def differences(row: Keystore, binding: Binding) -> list[str]:
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


def proved_place(owner: Organization, binding: Binding, proof: Proof) -> Place:
    """Return the place that a binding was proved at."""
    return Place(proof.cluster_id, binding.tenancy(owner.name).path, owner.name)


def require_free(
    session: Session, owner: Organization, binding: Binding, proof: Proof | None, but: Keystore | None = None
) -> None:
    """Raise where another keystore of the organization is at the place that a new one was proved at.

    Raises:
        Conflict: Then the clean-up of one would be the end of the other.

    """
    if proof is None:
        return
    there = proved_place(owner, binding, proof)
    for other in session.scalars(select(Keystore).where(Keystore.organization_id == owner.id)):
        if opening.place(owner, other) == there and (but is None or other.id != but.id):
            raise Conflict(
                f"the keystore {other.name!r} is at this very place already: {there}",
                hint=f"use {other.name!r}, or another mount or server",
            )


def bind(plane: ControlPlane, owner: Organization, row: Keystore, binding: Binding, proof: Proof | None) -> None:
    """Write down what a keystore is bound to from now on, as it was proved."""
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


def take_over(session: Session, actor: str, row: Keystore, mark: str | None) -> list[str]:
    """Let a keystore belong to the Pulumi resource that declares it; return warnings."""
    what = f"the keystore {row.name!r}"
    return ownership.take_over(session, actor, row.organization_id, row, mark, what=what, action="Keystore taken over")
