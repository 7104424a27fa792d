"""The registered keystores of an organization: registration, validated swap, removal (contract: Resources)."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pulumi_keystore import rules
from pulumi_keystore.address import KeystoreAddress
from pulumi_keystore.certificate import now_utc
from pulumi_keystore.control_plane import history, organizations
from pulumi_keystore.control_plane.models import (
    ArchiveKeyEntry,
    CleanUp,
    Keystore,
    LateKey,
    Organization,
    as_document,
)
from pulumi_keystore.control_plane.plane import CERTIFICATE_PURPOSE, ControlPlane
from pulumi_keystore.control_plane.tokens import Principal
from pulumi_keystore.declaration import Binding, Declaration
from pulumi_keystore.errors import Conflict, KeystoreFault, NotFound, Unsuitable
from pulumi_keystore.keystores.record import DamagedRecordError
from pulumi_keystore.keystores.tenancy import Tenancy
from pulumi_keystore.keystores.transport import Endpoint, Flow, Transport
from pulumi_keystore.keystores.vault import Proof, VaultKeystore
from pulumi_keystore.migration.copy import Entry

PAGE = 1000


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
    plane: ControlPlane, who: Principal, organization: str, name: str, declared: Declaration, *, adopt: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Register a keystore after proving it; the organization's first one becomes active.

    Safe to repeat: what is registered already is returned. Returns the keystore and warnings.

    Raises:
        RuleViolation: A property breaks a rule.
        KeystoreFault: The proof fails.
        Conflict: A keystore of this name has another binding, and `adopt` is not set.

    """
    rules.check_name(name)
    binding = declared.judge(organization)
    warnings = list(binding.certificate.warnings) if binding.certificate else []
    with plane.transaction() as session:
        owner = organizations.find(session, organization)
        organizations.require_cloud(owner)
        existing = _named(session, owner, name)
        if existing is not None:
            _require_kind(existing, binding)
            changes = _differences(existing, binding)
            if not changes:
                return describe(owner, existing), warnings
            if not adopt:
                raise Conflict(
                    f"the keystore {name!r} is registered with another {changes[0]}",
                    hint="set adopt=True to take it over and change it to what is declared",
                )
    if existing is not None:
        return swap(plane, who, organization, name, declared)
    proof, _ = _prove(plane, organization, binding, None)
    with plane.transaction() as session:
        owner = organizations.find(session, organization, lock=True)
        if _named(session, owner, name) is not None:
            raise Conflict(
                f"the keystore {name!r} was registered by somebody else meanwhile", hint="look, and try again"
            )
        row = Keystore(organization_id=owner.id, name=name, kind=binding.kind, created_at=now_utc(), revision=0)
        _bind(plane, owner, row, binding, proof)
        session.add(row)
        session.flush()
        if owner.active_keystore_id is None:
            owner.active_keystore_id = row.id
        history.append(session, owner.id, who.name, "Keystore registered", f"{name}: {row.address or row.kind}")
        return describe(owner, row), warnings


def swap(
    plane: ControlPlane, who: Principal, organization: str, name: str, declared: Declaration
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
    return _swap(plane, who, organization, name, lambda _owner, _row: binding)


def edit(
    plane: ControlPlane, who: Principal, organization: str, name: str, declared: Declaration, *, keep_certificate: bool
) -> tuple[dict[str, Any], list[str]]:
    """Do the same for what a form holds: kind, mount, role, and with `keep_certificate` the certificate, stay."""

    def binding(owner: Organization, row: Keystore) -> Binding:
        rest = replace(declared, kind=row.kind, mount=row.mount, role=row.role)
        return rest.judge(organization, plane.endpoint(owner, row).certificate if keep_certificate else None)

    return _swap(plane, who, organization, name, binding)


def _swap(
    plane: ControlPlane,
    who: Principal,
    organization: str,
    name: str,
    binding_of: Callable[[Organization, Keystore], Binding],
) -> tuple[dict[str, Any], list[str]]:
    with plane.transaction() as session:
        owner = organizations.find(session, organization)
        organizations.require_cloud(owner)
        organizations.require_no_maintenance(owner)
        row = find(session, owner, name)
        binding = binding_of(owner, row)
        warnings = list(binding.certificate.warnings) if binding.certificate else []
        revision, active = row.revision, owner.active_keystore_id == row.id
        _require_kind(row, binding)
        if not _differences(row, binding):
            return describe(owner, row), warnings
    proof, keys = _prove(plane, organization, binding, owner if active else None)
    with plane.transaction() as session:
        owner = organizations.find(session, organization, lock=True)
        organizations.require_no_maintenance(owner)
        row = find(session, owner, name)
        if row.revision != revision or (owner.active_keystore_id == row.id) != active:
            raise Conflict(f"the keystore {name!r} was changed by somebody else meanwhile", hint="look, and try again")
        if proof is not None and proof.cluster_id != row.cluster_id and pending_clean_ups(session, row.id):
            raise Conflict(
                f"the keystore {name!r} still holds keys that a clean-up has to remove where it is now",
                hint="make its server reachable; the service tries again by itself",
            )
        moved = proof is not None and proof.cluster_id != row.cluster_id
        if active and moved and organizations.count_keys(session, owner) != keys:
            # Written to the old server after the new one was looked through: the swap would lose them.
            raise Conflict(f"archive keys of {organization!r} were enrolled meanwhile", hint="look, and try again")
        before = f"{row.address}, certificate {(row.certificate_fingerprint or '')[:16]}"
        _bind(plane, owner, row, binding, proof)
        after = f"{row.address}, certificate {(row.certificate_fingerprint or '')[:16]}"
        history.append(session, owner.id, who.name, "Keystore edited", f"{name}: {before} → {after}")
        return describe(owner, row), warnings


def remove(plane: ControlPlane, who: Principal, organization: str, name: str) -> None:
    """Forget a keystore.

    Raises:
        Conflict: It is active and holds keys, or a clean-up of it is still to be done.
        InMaintenance: A migration is running.

    """
    with plane.transaction() as session:
        owner = organizations.find(session, organization, lock=True)
        organizations.require_no_maintenance(owner)
        row = find(session, owner, name)
        if owner.active_keystore_id == row.id:
            if keys := organizations.count_keys(session, owner):
                raise Conflict(
                    f"the keystore {name!r} is active and holds {keys:,} archive keys of {organization!r}",
                    hint="migrate them to another keystore first (KeystoreMigration), then delete this one",
                )
            owner.active_keystore_id = None
        if pending_clean_ups(session, row.id):
            raise Conflict(
                f"the keystore {name!r} still holds keys that a clean-up has to remove",
                hint="make its server reachable; the service tries again by itself",
            )
        session.flush()
        session.delete(row)
        history.append(session, owner.id, who.name, "Keystore removed", name)


def entries(
    plane: ControlPlane,
    organization_id: int,
    after: str | None = None,
    upto: str | None = None,
    *,
    without_late_of: str | None = None,
) -> Iterator[Entry]:
    """Yield enrolled keys in the order of user ids, a page at a time.

    Args:
        plane: Where they are written down.
        organization_id: Whose they are.
        after: Begin after this user id.
        upto: End with this user id.
        without_late_of: Leave out those that were enrolled during this migration.

    """
    query = select(ArchiveKeyEntry.user, ArchiveKeyEntry.generation, ArchiveKeyEntry.fingerprint).where(
        ArchiveKeyEntry.organization_id == organization_id
    )
    if upto is not None:
        query = query.where(ArchiveKeyEntry.user <= upto)
    if without_late_of is not None:
        late = select(LateKey.user).where(LateKey.migration_id == without_late_of, LateKey.user == ArchiveKeyEntry.user)
        query = query.where(~late.exists())
    query = query.order_by(ArchiveKeyEntry.user).limit(PAGE)
    while True:
        with plane.transaction() as session:
            page = session.execute(query if after is None else query.where(ArchiveKeyEntry.user > after)).all()
        for row in page:
            yield Entry(*row)
        if len(page) < PAGE:
            return
        after = page[-1][0]


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


def _prove(
    plane: ControlPlane, organization: str, binding: Binding, holder: Organization | None
) -> tuple[Proof | None, int]:
    """Prove a binding; with a `holder` also that every one of its archive keys is there, and return how many."""
    if binding.address is None or binding.certificate is None:
        return None, 0
    endpoint = Endpoint(binding.address, binding.certificate, binding.server_ca, plane.resolver)
    tenancy = Tenancy(organization, binding.mount, binding.role)
    vault = VaultKeystore(endpoint, tenancy, timeout_s=plane.settings.request_s)
    with Transport() as transport:
        try:
            proof = transport.run_one(vault.prove())
            keys = _require_all_keys(plane, transport, vault, holder) if holder is not None else 0
        except DamagedRecordError as damage:
            raise Unsuitable(f"{vault}: {damage}", hint="check the server's storage") from None
        finally:
            transport.run_one(vault.revoke())
    return proof, keys


def _require_all_keys(plane: ControlPlane, transport: Transport, vault: VaultKeystore, holder: Organization) -> int:
    def present(entry: Entry) -> Flow[bool]:
        try:
            record = yield from vault.read(entry.name)
        except DamagedRecordError:
            return False
        if record is None:
            return False
        digest = plane.master_key.fingerprint(holder.name, entry.user, record.key)
        return hmac.compare_digest(digest, entry.fingerprint)

    total = lacking = 0
    for there in transport.run((present(entry) for entry in entries(plane, holder.id)), plane.settings.in_flight):
        total += 1
        lacking += not there
    if lacking:
        raise Unsuitable(
            f"{vault}: lacks {lacking:,} of the {total:,} archive keys of {holder.name!r}",
            hint="migrate, do not edit: declare it as a second Keystore and make it the destination of a "
            "KeystoreMigration",
        )
    return total


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


def pending_clean_ups(session: Session, keystore_id: int) -> list[CleanUp]:
    """Return what still has to be removed from a keystore, oldest first."""
    mine = (CleanUp.keystore_id == keystore_id, CleanUp.state == "pending", CleanUp.side != "proof")
    query = select(CleanUp).where(*mine)
    return list(session.scalars(query.order_by(CleanUp.id)))
