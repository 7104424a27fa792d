"""Organizations at a glance: which of them have a problem, and which one.

However many organizations there are, what is asked costs as much as those that have a problem, or are on the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    Select,
    and_,
    any_,
    bindparam,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
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
from pulumi_keystore.declarations.migration import State
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.declarations.problems import Order, Problem, ProblemFilter

_ENDS_SOON: Final = timedelta(days=30)
_FAILED_LATELY: Final = timedelta(days=7)


# How the organizations with a problem are found, made once: to put queries together takes longer than to run them.
# Each problem has an index that holds only those with it; whose keystore it is, is looked up for each of those then.
# (Joined, PostgreSQL would read all organizations.) For the organizations of a page it is the other way round.
_NUMBERS: Final = any_(bindparam("numbers", type_=ARRAY(Integer)))
_USER_OF_HEALTH, _USER_OF_KEYSTORE = (
    select(Organization.id).where(Organization.active_keystore_id == used).correlate(used.class_).scalar_subquery()
    for used in (KeystoreHealth.keystore_id, Keystore.id)
)


def _of_health(is_wrong: ColumnElement[bool], *, among: bool) -> Select[int]:
    """Return a query for the organizations whose keystore in use was found so."""
    if not among:
        return select(_USER_OF_HEALTH.label("id")).where(is_wrong)
    used = KeystoreHealth.keystore_id == Organization.active_keystore_id
    return select(Organization.id.label("id")).join(KeystoreHealth, used).where(Organization.id == _NUMBERS, is_wrong)


def _of_keystore(is_wrong: ColumnElement[bool], *, among: bool) -> Select[int]:
    """Return a query for the organizations whose keystore in use is so, and run by themselves."""
    wrong = and_(Keystore.kind == Kind.SELF_ADMINISTERED, is_wrong)
    if not among:
        return select(_USER_OF_KEYSTORE.label("id")).where(wrong)
    used = Keystore.id == Organization.active_keystore_id
    return select(Organization.id.label("id")).join(Keystore, used).where(Organization.id == _NUMBERS, wrong)


def _server_expires(days: int) -> ColumnElement[bool]:
    """Return the condition that a server should have another certificate by now, of those that live long enough."""
    begin, end, span = KeystoreHealth.server_not_before, KeystoreHealth.server_not_after, timedelta(days=days)
    return and_(end < bindparam("now", type_=DateTime(timezone=True)) + span, end - begin >= SHARE * span)


def _queries(*, among: bool) -> dict[Problem, Select[int]]:
    """Return what finds the organizations with each problem; with `among`, those of some numbers."""

    def of(column: InstrumentedAttribute[int], is_wrong: ColumnElement[bool]) -> Select[int]:
        return select(column.label("id")).where(is_wrong, column == _NUMBERS if among else true())

    later = aliased(Migration)
    superseded = exists().where(
        later.organization_id == Migration.organization_id, later.started_at > Migration.started_at
    )
    failed = and_(Migration.state == State.FAILED, Migration.ended_at > bindparam("lately"), ~superseded)
    away = or_(not_(type_coerce(KeystoreHealth.online, Boolean)), KeystoreHealth.tested_at < bindparam("silent"))
    unsound = of(Verification.organization_id, Verification.missing + Verification.damaged > 0)
    missing = union(_of_health(KeystoreHealth.lacking > 0, among=among), unsound).subquery()
    expiring = union(
        _of_keystore(Keystore.certificate_not_after < bindparam("soon"), among=among),
        _of_health(or_(*(_server_expires(days) for days in (30, 7))), among=among),
    ).subquery()
    return {
        Problem.SUSPENDED: of(Organization.id, Organization.suspended.is_not(None)),
        Problem.OFFLINE: _of_health(away, among=among),
        Problem.KEYS_MISSING: select(missing.c.id.label("id")),
        Problem.MIGRATION_FAILED: of(Migration.organization_id, failed),
        Problem.CERTIFICATE: select(expiring.c.id.label("id")),
        Problem.NO_ALERTS: _of_keystore(not_(Keystore.alerts), among=among),
    }


_QUERIES: Final = _queries(among=False)
_ANY: Final = union(*_QUERIES.values()).subquery()
# Keystores that are not in use have no user.
_WITH_ANY: Final = select(_ANY.c.id).where(_ANY.c.id.is_not(None))
_COUNTED: Final = union_all(
    *(select(literal(problem), func.count(query.subquery().c.id)) for problem, query in _QUERIES.items())
)
_AMONG: Final = union_all(
    *(select(literal(problem), query.subquery().c.id) for problem, query in _queries(among=True).items())
)


def _moments(plane: ControlPlane, now: datetime) -> dict[str, datetime]:
    """Return what the queries are asked with."""
    minute_s = plane.settings.health_check_interval_s
    return {
        "silent": now - timedelta(seconds=(SILENCE + 1) * minute_s),
        "now": now,
        "soon": now + _ENDS_SOON,
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
    query, moments = registry.listed(session, after, search, order), {}
    if problem is not None:
        chosen = _WITH_ANY if problem is ProblemFilter.ANY else _QUERIES[Problem(problem)]
        found = any_(func.array(chosen.scalar_subquery()))
        query, moments = query.where(Organization.id == found), _moments(plane, now)
    return list(session.scalars(query.limit(limit), moments))


def _problems_first(
    session: Session, moments: Mapping[str, datetime], after: str, limit: int, search: str
) -> list[Organization]:
    """Return the next organizations after one, those with problems before all others.

    In which of both parts that one is, is asked now. Where it has been deleted meanwhile, the list begins anew.
    """
    wrong = Organization.id == any_(func.array(_WITH_ANY.scalar_subquery()))
    last = session.execute(select(wrong).where(Organization.name == after), moments).scalar_one_or_none()
    rows: list[Organization] = []
    if last is not False:
        query = registry.listed(session, after if last else "", search).where(wrong)
        rows += session.scalars(query.limit(limit), moments)
    if len(rows) < limit:
        query = registry.listed(session, after if last is False else "", search).where(
            Organization.id.not_in(_WITH_ANY)
        )
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
