"""Organizations: the customers whose keys are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Select, SelectBase, exists, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from pulumi_keystore.answers import OrganizationAnswer
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.organizations import history, ownership
from pulumi_keystore.control_plane.organizations.ledger import count_keys, count_keys_of_all
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.tables import one_of
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.names import Kind, check_organization
from pulumi_keystore.declarations.problems import Order
from pulumi_keystore.errors import Conflict, InvalidInput, NotFound, RecoveryNeeded

PAGE: Final = 50
"""How many organizations a page shows."""
ENVIRONMENTS: Final = ("cloud", "federal")
EXPIRING: Final = select(Keystore.certificate_not_after, Keystore.id).where(
    Keystore.kind == Kind.SELF_ADMINISTERED, Keystore.certificate_not_after.is_not(None)
)
"""When client certificates expire, and of which keystores: what organizations are sorted by."""


def find(session: Session, name: str, *, lock: bool = False) -> Organization:
    """Return an organization; `lock` keeps others from changing its keystores until the transaction ends.

    Raises:
        NotFound: There is none of that name.

    """
    row = named(session, name, lock=lock)
    if row is None:
        raise no_organization(name)
    return row


def named(session: Session, name: str, *, lock: bool = False) -> Organization | None:
    """Return an organization, None where there is none of that name; `lock` as in `find`."""
    query = select(Organization).where(Organization.name == name)
    # Text that can be no name (a NUL, say) is not even asked for.
    return session.scalar(query.with_for_update() if lock else query) if name.isprintable() else None


def listed(
    session: Session,
    after: str = "",
    search: str = "",
    order: Order = Order.NAME,
    expiring: SelectBase = EXPIRING,
) -> Select[Organization]:
    """Return a query for organizations, sorted; those after one, and with `search` those whose name holds it.

    Where the one that others come after has been deleted meanwhile, an order but that of names begins anew. Sorted by
    certificate, only those that use one of the keystores in `expiring`.
    """
    query = select(Organization)
    if search:
        query = query.where(Organization.name.contains(search, autoescape=True))
    if order is Order.NEWEST:
        last = session.scalar(select(Organization.id).where(Organization.name == after)) if after else None
        return (query if last is None else query.where(Organization.id < last)).order_by(Organization.id.desc())
    if order is Order.CERTIFICATE:
        shown = EXPIRING.join(Organization, Organization.active_keystore_id == Keystore.id)
        found = session.execute(shown.where(Organization.name == after)).first() if after else None
        ends = expiring.subquery()
        query = query.join(ends, ends.c.id == Organization.active_keystore_id)
        return (query if found is None else query.where(tuple_(*ends.c) > tuple_(*found))).order_by(*ends.c)
    if order is Order.NAME_DESCENDING:
        return (query.where(Organization.name < after) if after else query).order_by(Organization.name.desc())
    return (query.where(Organization.name > after) if after else query).order_by(Organization.name)


def in_maintenance(session: Session, limit: int) -> list[str]:
    """Return the names of organizations whose keys are migrating, by name."""
    busy = select(Organization.name).where(Organization.maintenance_by.is_not(None))
    return list(session.scalars(busy.order_by(Organization.name).limit(limit)))


def put(
    session: Session, actor: str, name: str, environment: str = "cloud", mark: str | None = None
) -> tuple[Organization, list[str]]:
    """Create an organization, or return the one there is; with warnings.

    Raises:
        RuleViolation: KS031.
        Conflict: It exists in the other environment.

    """
    check_organization(name)
    if environment not in ENVIRONMENTS:
        raise InvalidInput(
            f"environment: unknown value {environment[:40]!r}",
            hint="expected cloud or federal",
            prop="environment",
        )
    new = insert(Organization).values(name=name, environment=environment, created_at=now_utc())
    made = session.scalar(new.on_conflict_do_nothing().returning(Organization.id))
    if made is not None:
        history.append(session, history.SERVICE, actor, "Organization created", f"{name}, {environment}")
    row = find(session, name, lock=True)
    if row.environment != environment:
        raise Conflict(
            f"environment: the organization {name!r} is in the {row.environment} environment",
            hint="an organization never changes its environment",
            prop="environment",
        )
    what = f"the organization {name!r}"
    return row, ownership.take_over(session, actor, row.id, row, mark, what=what, action="Organization taken over")


def remove(session: Session, actor: str, name: str, mark: str | None = None) -> None:
    """Delete an organization that has no keystores and no keys.

    Raises:
        Conflict: It still has some.
        ManagedElsewhere: A Pulumi resource asks that does not manage it any more.

    """
    row = find(session, name, lock=True)
    ownership.require_owned(row, mark, f"the organization {name!r}")
    keys = count_keys(session, row)
    if keys:
        raise Conflict(
            f"the organization {name!r} holds {count(keys, 'archive key')}",
            hint="nothing that holds keys can be deleted",
        )
    if session.scalar(select(exists().where(Keystore.organization_id == row.id))):
        raise Conflict(f"the organization {name!r} has keystores", hint="delete its keystores first")
    # Its tokens, and what is left of its legacy keys, go with it (ON DELETE CASCADE).
    session.delete(row)
    history.append(session, history.SERVICE, actor, "Organization deleted", f"{name}, {row.environment}")


def describe(session: Session, row: Organization) -> OrganizationAnswer:
    """Return what may be shown of an organization."""
    return describe_all(session, [row])[0]


def describe_all(session: Session, rows: Sequence[Organization]) -> list[OrganizationAnswer]:
    """Return what may be shown of organizations, with two questions to the database for all of them."""
    used = one_of(Keystore.id, [row.active_keystore_id for row in rows if row.active_keystore_id])
    active, keys = (
        dict(session.execute(select(Keystore.id, Keystore.name).where(used)).all()),
        count_keys_of_all(session, rows),
    )
    return [
        {
            "name": row.name,
            "environment": row.environment,
            "created_at": row.created_at.isoformat(),
            "suspended": row.suspended,
            "active_keystore": active.get(row.active_keystore_id or 0),
            "maintenance": row.maintenance_by,
            "archive_keys": keys.get(row.id, 0),
        }
        for row in rows
    ]


def require_known(row: Organization) -> None:
    """Raise where a keystore knows more than this database.

    Raises:
        RecoveryNeeded: Nothing may be changed until an administrator has recovered the organization.

    """
    if row.suspended is not None:
        raise RecoveryNeeded(
            f"the organization {row.name!r} is suspended: {row.suspended}",
            hint=f"review the plan with `keystore recover {row.name}`; nothing is deleted meanwhile",
        )


def no_organization(name: str) -> NotFound:
    """Return the error for an organization that is not there, or not to be seen."""
    return NotFound(
        f"there is no organization {name!r}",
        hint="list them with `keystore organization list`, or declare an Organization",
        prop="organization",
    )
