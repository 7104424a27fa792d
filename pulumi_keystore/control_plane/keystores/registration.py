"""The registered keystores of an organization: they come and go (contract: Resources)."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pulumi_keystore.answers import KeystoreAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import checkpoints, clean_ups, swapping
from pulumi_keystore.control_plane.keystores.binding import (
    bind,
    differences,
    require_changeable,
    require_free,
    require_kind,
    take_over,
)
from pulumi_keystore.control_plane.keystores.proving import prove, where
from pulumi_keystore.control_plane.organizations import history, ledger, maintenance, ownership, registry
from pulumi_keystore.control_plane.organizations.keystores import describe, find, named
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.keystore import Binding, Declaration
from pulumi_keystore.declarations.names import check_name
from pulumi_keystore.errors import Conflict, TooManyRequests, Unsuitable
from pulumi_keystore.vault.keystore import Proof


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
        if existing is not None:
            require_kind(existing, binding)
            changes = differences(existing, binding)
            if not changes:
                return describe(owner, existing), warnings + take_over(session, actor, existing, mark)
            if not adopt:
                another = changes[0].replace("server_ca", "server CA")
                raise Conflict(
                    f"the keystore {name!r} is registered with another {another}",
                    hint="set adopt=True to take it over and change it to what is declared",
                )
    if existing is not None:
        return swapping.swap_to(plane, actor, organization, name, lambda _owner, _row: binding, mark=mark)
    found = prove(plane, organization, binding)
    with plane.transaction() as session:
        owner = registry.find(session, organization, lock=True)
        if named(session, owner, name) is not None:
            raise Conflict(
                f"the keystore {name!r} was registered by another request meanwhile",
                hint="check its current state and try again",
            )
        _require_quota(session, plane, owner)
        require_free(session, owner, binding, found.proof)
        row = Keystore(
            organization_id=owner.id, name=name, kind=binding.kind, namespace="", created_at=now_utc(), revision=0
        )
        row.owner_mark = mark or None
        bind(plane, owner, row, binding, found.proof)
        session.add(row)
        session.flush()
        first = owner.active_keystore_id is None
        if first:
            owner.active_keystore_id = row.id
        history.append(session, owner.id, actor, "Keystore registered", f"{name}: {where(row)}")
        keys = ledger.count_keys(session, owner)
        if found.holds_keys and (not keys or found.is_newer_than(owner)):
            reason = f"the keystore {name!r} holds {count(found.entries, 'entry')} that this database does not know"
            checkpoints.suspend(session, owner, reason)
        elif first and not keys and found.checkpoint is not None and found.checkpoint.active:
            # Of an organization of this name that was deleted when it held no key any more.
            owner.epoch = max(owner.epoch, found.checkpoint.epoch)
            checkpoints.advance(owner)
        if found.entries:
            warnings.append(
                f"{count(found.entries, 'entry')} found in {found.place}; nothing there is deleted or written over"
                + (f": run `keystore recover {organization}` to take the archive keys in" if owner.suspended else "")
            )
        return describe(owner, row), warnings


def _require_quota(session: Session, plane: ControlPlane, owner: Organization) -> None:
    most = plane.settings.keystores_per_organization
    query = select(func.count()).where(Keystore.organization_id == owner.id)
    if (session.scalar(query) or 0) >= most:
        raise TooManyRequests(
            f"the organization {owner.name!r} has {count(most, 'keystore')}, and may not have more",
            hint="delete the ones that are no longer used",
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
        require_changeable(owner)
        if named(session, owner, name) is not None:
            raise Conflict(f"there is a keystore {name!r} already", hint="choose it, or another name", prop="name")
    found = prove(plane, organization, binding)
    with plane.transaction() as session:
        require_free(session, owner, binding, found.proof)
    if found.entries:
        raise Unsuitable(
            f"{binding.address}: {found.place} holds {count(found.entries, 'entry')} already",
            hint="nothing was overwritten: find out who owns these entries; if in doubt, use another mount or server",
        )
    return binding, found.proof


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
                    f"the keystore {name!r} is active and holds {count(keys, 'archive key')} of {organization!r}",
                    hint="migrate them to another keystore first (KeystoreMigration), then delete this one",
                )
            owner.active_keystore_id = None
        session.flush()
        session.delete(row)
        history.append(session, owner.id, actor, "Keystore removed", name)
