"""Organizations at a glance: each problem is found where it is, and nowhere else; lists cost what they show."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import event, insert

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane import overview
from pulumi_keystore.control_plane.console.render import page
from pulumi_keystore.control_plane.keystores.tables import Verification
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.monitoring.tables import KeystoreHealth
from pulumi_keystore.control_plane.organizations.tables import ArchiveKeyEntry, Keystore, Organization
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.declarations.problems import Order, Problem, ProblemFilter

PLANE = SimpleNamespace(settings=Settings())
NOW = now_utc()
VISITOR = SimpleNamespace(may_administer=True, form_token="token", actor=SimpleNamespace(name="ops", role="viewer"))
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def fill(session, count, *, kind="self-administered"):
    """Make organizations with two keystores each, of which the first is in use, and nothing is wrong with any."""
    numbers = range(1, count + 1)
    session.execute(
        insert(Organization),
        [{"id": n, "name": f"org-{n:06}", "environment": "cloud", "created_at": NOW} for n in numbers],
    )
    keystores = [
        {"id": 10 * n + m, "organization_id": n, "name": f"keystore {m}", "kind": kind, "revision": 1, "alerts": True,
         "certificate_not_after": NOW + 300 * DAY, "created_at": NOW - DAY} for n in numbers for m in (1, 2)
    ]  # fmt: skip
    session.execute(insert(Keystore), keystores)
    minute = int(NOW.timestamp() // 60)
    session.execute(
        insert(KeystoreHealth),
        [{"keystore_id": row["id"], "phase": 0.0, "minute": minute, "online": True, "seconds": 0.1, "since": NOW,
          "tested_at": NOW} for row in keystores],
    )  # fmt: skip
    for n in numbers:
        session.get_one(Organization, n).active_keystore_id = 10 * n + 1
    session.flush()


def migrated(number, state, hours_ago):
    at = NOW - timedelta(hours=hours_ago)
    return Migration(
        id=f"{number}-{state}-{hours_ago}", organization_id=number, source_id=1, destination_id=2, source="s",
        destination="d", state=state, phase="ended", mode="maintenance", total=1, requested_by="x", started_at=at,
        ended_at=at + MINUTE,
    )  # fmt: skip


@pytest.fixture
def session(factory):
    """Twenty organizations; of ten something is wrong, each with a relative beside it of which nothing is."""
    with factory() as session:
        fill(session, 20)
        health = {n: session.get_one(KeystoreHealth, n) for n in (31, 42, 51, 62, 71)}
        session.get_one(Organization, 1).suspended = "a keystore is newer"
        health[31].online = False
        health[42].online = False  # not the one in use
        health[51].tested_at = NOW - 10 * MINUTE
        health[62].lacking = 1
        health[71].lacking = 2
        for n, missing in ((8, 1), (9, 0)):
            session.add(Verification(organization_id=n, at=NOW, keystore="k", keys=3, missing=missing, damaged=0,
                                     surplus=4, named={}))  # fmt: skip
        # The latest failed; failed and then succeeded; canceled; failed long ago.
        session.add_all([migrated(10, "succeeded", 5), migrated(10, "failed", 3), migrated(11, "failed", 5)])
        session.add_all([migrated(11, "succeeded", 3), migrated(12, "canceled", 3), migrated(13, "failed", 24 * 8)])
        session.get_one(Keystore, 141).certificate_not_after = NOW + 29 * DAY
        session.get_one(Keystore, 152).certificate_not_after = NOW + 29 * DAY
        session.get_one(Keystore, 161).certificate_not_after = NOW + 31 * DAY
        session.get_one(Keystore, 171).alerts = False
        session.get_one(Keystore, 182).alerts = False
        session.get_one(Keystore, 191).alerts = False
        session.get_one(Keystore, 191).kind = "provider"
        session.get_one(Keystore, 201).certificate_not_after = NOW - DAY
        session.get_one(KeystoreHealth, 201).online = False
        session.flush()
        yield session


EXPECTED = {
    Problem.SUSPENDED: [1],
    Problem.OFFLINE: [3, 5, 20],
    Problem.KEYS_MISSING: [7, 8],
    Problem.MIGRATION_FAILED: [10],
    Problem.CERTIFICATE: [14, 20],
    Problem.NO_ALERTS: [17],
}


def listed(session, **wanted):
    return overview.describe(session, PLANE, overview.list_page(session, PLANE, NOW, **wanted), NOW)


def numbers(rows):
    return [int(row["name"].removeprefix("org-")) for row in rows]


@pytest.mark.parametrize("problem", list(Problem))
def test_a_list_holds_those_with_a_problem_and_no_others(session, problem):
    rows = listed(session, problem=ProblemFilter(problem))
    assert numbers(rows) == EXPECTED[problem]
    assert all(problem in row["problems"] for row in rows)


def test_a_list_can_be_filtered_by_every_problem():
    assert {*ProblemFilter} == {*Problem, ProblemFilter.ANY}


def test_each_is_shown_with_all_its_problems_and_counted(session):
    rows = listed(session)
    shown = {number: row["problems"] for number, row in zip(numbers(rows), rows, strict=True)}
    assert shown == {n: [p for p in Problem if n in EXPECTED[p]] for n in range(1, 21)}
    assert overview.count_problems(session, PLANE, NOW) == {p: len(found) for p, found in EXPECTED.items()}


def test_those_with_any_problem_come_once_in_pages(session):
    found, after = [], ""
    while rows := listed(session, problem=ProblemFilter.ANY, limit=4, after=after):
        found += numbers(rows)
        after = rows[-1]["name"]
    assert found == sorted({number for found in EXPECTED.values() for number in found})
    assert numbers(listed(session, problem=ProblemFilter.ANY, search="01")) == [1, 10, 14, 17]


@pytest.mark.parametrize("order", [Order.NAME_DESCENDING, Order.NEWEST, Order.CERTIFICATE])
@pytest.mark.parametrize("problem", list(ProblemFilter))
def test_a_filter_finds_the_same_in_every_order(session, problem, order):
    tested = {
        n for n in numbers(listed(session, problem=problem)) if session.get_one(Keystore, 10 * n + 1).kind != "provider"
    }
    found, after = [], ""
    while rows := listed(session, problem=problem, order=order, limit=2, after=after):
        found += numbers(rows)
        after = rows[-1]["name"]
    keys = {
        Order.NAME_DESCENDING: lambda n: -n,
        Order.NEWEST: lambda n: -n,
        Order.CERTIFICATE: lambda n: (session.get_one(Keystore, 10 * n + 1).certificate_not_after, n),
    }
    assert found == sorted(tested, key=keys[order])


def test_the_worst_come_first_and_each_once(session):
    counts = overview.count_problems(session, PLANE, NOW)
    for limit, expected in ((20, [1, 3, 5, 20, 7, 8, 10, 14, 17]), (3, [1, 3, 5])):
        rows = overview.worst(session, PLANE, NOW, counts, limit)
        assert [row.id for row in rows] == expected


def test_a_row_says_how_its_keystore_does(session):
    row = listed(session, search="000003")[0]
    assert (row["active_keystore"], row["kind"], row["status"]) == ("keystore 1", "self-administered", "Offline")
    assert row["certificate_not_after"] == (NOW + 300 * DAY).isoformat()
    row = listed(session, search="000019")[0]
    assert (row["kind"], row["status"], row["problems"]) == ("provider", None, [])


def test_the_questions_do_not_grow_with_the_rows(engine, factory):
    asked = []
    with factory() as session:
        fill(session, 120)
        event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
        counts = []
        for limit in (2, 100):
            session.expire_all()
            asked.clear()
            listed(session, limit=limit)
            counts.append(len(asked))
    assert counts[0] == counts[1] <= 8


def test_a_server_s_certificate_counts_unless_a_machine_still_renews_it(factory):
    lives = {1: (365, 20), 2: (365, 40), 3: (90, 20), 4: (90, 5), 5: (7, 1), 6: (365, -1)}
    with factory() as session:
        fill(session, 7)
        for number, (life, left) in lives.items():
            row = session.get_one(KeystoreHealth, 10 * number + 1)
            row.server_not_after = NOW + left * DAY
            row.server_not_before = row.server_not_after - life * DAY
        session.flush()
        assert numbers(listed(session, problem=ProblemFilter.CERTIFICATE)) == [1, 4, 6]
        assert overview.count_problems(session, PLANE, NOW)[Problem.CERTIFICATE] == 3


def test_a_page_of_the_console_stays_under_100_kb(factory):
    with factory() as session:
        fill(session, 110)
        session.add_all(
            ArchiveKeyEntry(organization_id=n, user="u", generation=1, fingerprint=b"x", escrowed_at=NOW)
            for n in range(1, 111)
        )
        for n in range(1, 111):
            session.get_one(KeystoreHealth, 10 * n + 1).online = False
            session.get_one(Keystore, 10 * n + 1).alerts = False
        session.flush()
        rows, first = listed(session, limit=100), listed(session, limit=10, problem=ProblemFilter.ANY)
        counts = {problem: count for problem, count in overview.count_problems(session, PLANE, NOW).items() if count}
    shown = page("organizations.html", visitor=VISITOR, rows=rows, first=first, counts=counts, busy=["org-000001"] * 20,
                 more="org-000100", after="", search="", problem=None, sort="name")  # fmt: skip
    assert len(rows) == 100
    assert shown.body.count(b"No alerts") >= 110
    assert len(shown.body) < 100_000
