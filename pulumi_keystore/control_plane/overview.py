"""Organizations at a glance: which of them have a problem, and which one.

However many organizations there are, what is asked costs as much as those that have a problem, or are on the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    Select,
    SelectBase,
    and_,
    any_,
    bindparam,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    type_coerce,
    union,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from pulumi_keystore.answers import ListedOrganizationAnswer
from pulumi_keystore.control_plane.keystores.tables import Verification
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.monitoring import views
from pulumi_keystore.control_plane.monitoring.expiry import SHARE
from pulumi_keystore.control_plane.monitoring.status import SILENCE
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.organizations import registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import iso, one_of
from pulumi_keystore.declarations.expiry import WARN_BEFORE_EXPIRY
from pulumi_keystore.declarations.migration import State
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.declarations.problems import Order, Problem, ProblemFilter

_FAILED_LATELY: Final = timedelta(days=7)


_Sign = tuple[InstrumentedAttribute[Any], Select[int]]
"""A column of organizations, and a query for what it holds where something is wrong."""


# How the organizations with a problem are found, made once: to put queries together takes longer than to run them.
# Each problem has an index that holds only those with it.
def _of_health(is_wrong: ColumnElement[bool]) -> _Sign:
    """Return the sign that the keystore in use was found so."""
    return Organization.active_keystore_id, select(KeystoreHealth.keystore_id).where(is_wrong)


def _of_keystore(is_wrong: ColumnElement[bool]) -> _Sign:
    """Return the sign that the keystore in use is so, and run by the organization itself."""
    found = select(Keystore.id).where(Keystore.kind == Kind.SELF_ADMINISTERED, is_wrong)
    return Organization.active_keystore_id, found


def _server_expires(days: int) -> ColumnElement[bool]:
    """Return the condition that a server should have another certificate by now, of those that live long enough."""
    begin, end, span = KeystoreHealth.server_not_before, KeystoreHealth.server_not_after, timedelta(days=days)
    return and_(end < bindparam("now", type_=DateTime(timezone=True)) + span, end - begin >= SHARE * span)


def _signs() -> dict[Problem, list[_Sign]]:
    """Return by what each problem is seen; one sign is enough."""
    later, itself = aliased(Migration), aliased(Organization)
    superseded = exists().where(
        later.organization_id == Migration.organization_id, later.started_at > Migration.started_at
    )
    failed = and_(Migration.state == State.FAILED, Migration.ended_at > bindparam("lately"), ~superseded)
    away = or_(not_(type_coerce(KeystoreHealth.online, Boolean)), KeystoreHealth.tested_at < bindparam("silent"))
    unsound = select(Verification.organization_id).where(Verification.missing + Verification.damaged > 0)
    return {
        Problem.SUSPENDED: [(Organization.id, select(itself.id).where(itself.suspended.is_not(None)))],
        Problem.OFFLINE: [_of_health(away)],
        Problem.KEYS_MISSING: [_of_health(KeystoreHealth.lacking > 0), (Organization.id, unsound)],
        Problem.MIGRATION_FAILED: [(Organization.id, select(Migration.organization_id).where(failed))],
        Problem.CERTIFICATE: [
            _of_keystore(Keystore.certificate_not_after < bindparam("soon")),
            _of_health(or_(*(_server_expires(days) for days in (WARN_BEFORE_EXPIRY.days, 7)))),
        ],
        Problem.NO_ALERTS: [_of_keystore(not_(Keystore.alerts))],
    }


def _has(signs: Iterable[_Sign]) -> ColumnElement[bool]:
    """Return the condition that one of the signs is seen; what is found is one array each, looked up at once.

    (Joined, PostgreSQL would read all organizations; one by one, each would be read twice.)
    """
    return or_(*(column == any_(func.array(found.scalar_subquery())) for column, found in signs))


def _expiring(signs: Iterable[_Sign]) -> SelectBase:
    """Return the keystores at which one of the signs is seen, sorted: of their organizations only a page is read."""
    at = {"id": Keystore.organization_id, "active_keystore_id": Keystore.id}
    seen = (registry.EXPIRING.where(_has([(at[column.key], found)])) for column, found in signs)
    return union(*seen).order_by("certificate_not_after", "id")


_SIGNS: Final = _signs()
_OF: Final = {
    **{ProblemFilter(problem): signs for problem, signs in _SIGNS.items()},
    ProblemFilter.ANY: list(chain.from_iterable(_SIGNS.values())),
}
_FILTERS: Final = {problem: _has(signs) for problem, signs in _OF.items()}
_EXPIRING: Final = {problem: _expiring(signs) for problem, signs in _OF.items()}
_COUNTED: Final = union_all(
    *(
        select(literal(problem), func.count()).select_from(Organization).where(_has(signs))
        for problem, signs in _SIGNS.items()
    )
)
# For the organizations of a page it is the other way round: of each is asked whether it has the problem.
_AMONG: Final = union_all(
    *(
        select(literal(problem), Organization.id).where(
            Organization.id == any_(bindparam("numbers", type_=ARRAY(Integer))), column.in_(found)
        )
        for problem, signs in _SIGNS.items()
        for column, found in signs
    )
)


def _moments(plane: ControlPlane, now: datetime) -> dict[str, datetime]:
    """Return what the queries are asked with."""
    minute_s = plane.settings.health_check_interval_s
    return {
        "silent": now - timedelta(seconds=(SILENCE + 1) * minute_s),
        "now": now,
        "soon": now + WARN_BEFORE_EXPIRY,
        "lately": now - _FAILED_LATELY,
    }


def list_page(
    session: Session,
    plane: ControlPlane,
    now: datetime,
    *,
    after: str = "",
    limit: int = registry.PAGE,
    search: str = "",
    problem: ProblemFilter | None = None,
    order: Order = Order.NAME,
) -> list[Organization]:
    """Return the next organizations after one.

    Args:
        session: A transaction.
        plane: What it is about.
        now: The moment.
        after: The last name of the page before.
        limit: How many at the most.
        search: Only those whose name holds this.
        problem: Only those with this problem, or with any.
        order: How they are sorted.

    """
    if order is Order.PROBLEMS and problem is None:
        return _problems_first(session, _moments(plane, now), after, limit, search)
    if problem is None:
        query = registry.listed(session, after, search, order)
    elif order is Order.CERTIFICATE:
        query = registry.listed(session, after, search, order, _EXPIRING[problem])
    else:
        query = registry.listed(session, after, search, order).where(_FILTERS[problem])
    return list(session.scalars(query.limit(limit), _moments(plane, now)))


def _problems_first(
    session: Session, moments: Mapping[str, datetime], after: str, limit: int, search: str
) -> list[Organization]:
    """Return the next organizations after one, those with problems before all others.

    In which of both parts that one is, is asked now. Where it has been deleted meanwhile, the list begins anew.
    """
    # Of an organization without an active keystore it is neither true nor false.
    wrong = func.coalesce(_FILTERS[ProblemFilter.ANY], false())
    last = session.execute(select(wrong).where(Organization.name == after), moments).scalar_one_or_none()
    rows: list[Organization] = []
    if last is not False:
        query = registry.listed(session, after if last else "", search).where(_FILTERS[ProblemFilter.ANY])
        rows += session.scalars(query.limit(limit), moments)
    if len(rows) < limit:
        query = registry.listed(session, after if last is False else "", search).where(not_(wrong))
        rows += session.scalars(query.limit(limit - len(rows)), moments)
    return rows


def worst(
    session: Session, plane: ControlPlane, now: datetime, counts: Mapping[Problem, int], limit: int
) -> list[Organization]:
    """Return the first organizations with problems, the worst problems first; `counts` are those of each."""
    found: dict[int, Organization] = {}
    for problem in Problem:
        if counts[problem] and len(found) < limit:
            # Of those that are found already none takes another's place.
            rows = list_page(session, plane, now, limit=limit, problem=ProblemFilter(problem))
            found |= {row.id: row for row in rows if row.id not in found}
    return list(found.values())[:limit]


def describe(
    session: Session, plane: ControlPlane, rows: Sequence[Organization], now: datetime
) -> list[ListedOrganizationAnswer]:
    """Return what lists show of organizations, with a few questions to the database for all of them."""
    used = one_of(Keystore.id, [row.active_keystore_id for row in rows if row.active_keystore_id])
    active = {row.id: row for row in session.scalars(select(Keystore).where(used))}
    tested = [row for row in active.values() if row.kind == Kind.SELF_ADMINISTERED]
    connections = views.connections(session, plane, tested, now)
    wrong: defaultdict[int, list[str]] = defaultdict(list)
    for problem, number in session.execute(_AMONG, {**_moments(plane, now), "numbers": [row.id for row in rows]}):
        wrong[number].append(problem)
    shown: list[ListedOrganizationAnswer] = []
    for row, described in zip(rows, registry.describe_all(session, rows), strict=True):
        keystore = active.get(row.active_keystore_id or 0)
        connection = connections.get(keystore.id) if keystore else None
        shown.append(
            {
                **described,
                "kind": keystore.kind if keystore else None,
                "status": connection.status if connection else None,
                "reason": connection.reason if connection else None,
                "certificate_not_after": iso(keystore.certificate_not_after) if keystore else None,
                "problems": [problem for problem in Problem if problem in wrong[row.id]],
            }
        )
    return shown


def count_problems(session: Session, plane: ControlPlane, now: datetime) -> dict[Problem, int]:
    """Return how many organizations have each problem."""
    found: dict[str, int] = dict(session.execute(_COUNTED, _moments(plane, now)).all())
    return {problem: found.get(problem, 0) for problem in Problem}
