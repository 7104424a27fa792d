"""Lists of organizations by the API and the command: sorted, by their problems, and those with problems first."""

from datetime import timedelta

import pytest

from pulumi_keystore.cli import organizations as command
from pulumi_keystore.cli.output import Format
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.declarations.problems import Order, ProblemFilter
from pulumi_keystore.errors import NotAllowed


@pytest.fixture
def landscape(plane):
    """Eight organizations: c and f are suspended, a to d alert no one, and certificates end in the order of h to a."""
    now = now_utc()
    with plane.transaction() as session:
        for number, name in enumerate("abcdefgh", 100):
            suspended = "a reason" if name in "cf" else None
            session.add(Organization(id=number, name=name, environment="cloud", suspended=suspended))
            session.flush()
            session.add(
                Keystore(
                    id=number, organization_id=number, name="k", kind="self-administered", alerts=name not in "abcd",
                    address="https://vault.example.com:8200", mount=name, cluster_id=name, namespace="",
                    certificate_not_after=now + timedelta(days=500 - number),
                )
            )  # fmt: skip
            session.flush()
            session.get_one(Organization, number).active_keystore_id = number


def names(rows):
    return "".join(row["name"] for row in rows if len(row["name"]) == 1)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (Order.NAME, "abcdefgh"),
        (Order.NAME_DESCENDING, "hgfedcba"),
        (Order.NEWEST, "hgfedcba"),
        (Order.CERTIFICATE, "hgfedcba"),
        (Order.PROBLEMS, "abcdfegh"),
    ],
)
def test_each_order_is_whole_over_all_pages(client, landscape, sort, expected):
    assert names(client.organizations(sort=sort)) == expected


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_list_with_problems_first_goes_on_where_a_page_ends(client, landscape, limit):
    found, after = "", ""
    while page := client.request("GET", "organizations", sort="problems", limit=limit, after=after):
        assert len(page) <= limit
        found += names(page)
        after = page[-1]["name"]
    assert found == "abcdfegh"


def test_a_list_with_problems_first_begins_anew_after_what_is_gone(client, landscape):
    assert names(client.organizations(sort="problems", after="f")) == "egh"
    assert names(client.organizations(sort="problems", after="gone")) == "abcdfegh"
    assert names(client.organizations(sort="problems", problem="suspended", after="c")) == "f"
    assert names(client.organizations(sort="problems", search="g")) == "g"


def test_an_answer_holds_a_hundred_unless_more_are_asked_for_and_a_list_is_whole(client, plane):
    with plane.transaction() as session:
        session.add_all(Organization(name=f"org-{number:03}", environment="cloud") for number in range(120))
    first = client.request("GET", "organizations")
    assert len(first) == 100
    assert client.request("GET", "organizations", after=first[-1]["name"])[0]["name"] > first[-1]["name"]
    assert len(client.request("GET", "organizations", limit=1000)) == len(list(client.organizations())) >= 120


def test_certificates_that_expire_at_once_are_sorted_over_all_pages(client, plane, landscape):
    with plane.transaction() as session:
        for number in range(100, 108):
            session.get_one(Keystore, number).certificate_not_after = now_utc()
    found, after = "", ""
    while rows := client.request("GET", "organizations", sort="certificate", limit=3, after=after):
        found += names(rows)
        after = rows[-1]["name"]
    assert found == "abcdefgh"


def test_those_with_a_problem_are_listed_alone_and_counted(client, landscape):
    assert names(client.organizations(problem="suspended")) == "cf"
    assert names(client.organizations(problem="no-alerts")) == "abcd"
    assert names(client.organizations(problem="no-alerts", sort="-name")) == "dcba"
    assert names(client.organizations(problem="no-alerts", search="c")) == "c"
    assert names(client.organizations(problem="certificate")) == ""
    listed = {row["name"]: row["problems"] for row in client.organizations()}
    assert listed["c"][:1] == ["suspended"]
    assert "no-alerts" in listed["c"]
    counts = client.problems()
    assert (counts["suspended"], counts["no-alerts"], counts["certificate"]) == (2, 4, 0)


def test_who_sees_one_organization_counts_none(client_of, landscape):
    one = client_of("viewer", "acme")
    assert [row["name"] for row in one.organizations()] == ["acme"]
    with pytest.raises(NotAllowed):
        one.problems()


@pytest.fixture
def told(client, monkeypatch, capsys):
    """Return what `keystore organization list` prints: the rows, and what stands beside them."""
    monkeypatch.setattr(command, "ask", lambda: client)
    monkeypatch.setattr(type(client), "close", lambda _: None)
    printed = []
    monkeypatch.setattr(command, "print_rows", lambda rows, *_: printed.append(rows))

    def told(search="", problem=None, sort=Order.PROBLEMS, after="", limit=1000):
        command.organization_list(search, problem, sort, after, limit, Format.TABLE)
        return printed.pop(), capsys.readouterr().err

    return told


def test_the_command_has_those_with_problems_first_and_counts_them(told, landscape):
    rows, beside = told()
    with_problems = [row["name"] for row in rows if row["problems"]]
    assert [row["name"] for row in rows][: len(with_problems)] == sorted(with_problems)
    assert len({row["name"] for row in rows}) == len(rows) == 10
    assert "2 suspended" in beside
    assert "4 no-alerts" in beside
    assert "more organizations" not in beside


def test_the_command_says_that_there_are_more(told, landscape):
    rows, beside = told(limit=4)
    assert len(rows) == 4
    assert f"--after {rows[-1]['name']}`" in beside
    assert names(told(sort=Order.NEWEST, limit=3)[0]) == "hgf"
    assert names(told(problem=ProblemFilter.SUSPENDED)[0]) == "cf"
    assert "more" not in told(search="a", limit=3)[1].partition("problems")[0]


def test_the_command_goes_on_after_the_last_one(told, landscape):
    first, _ = told(limit=6)
    rest, beside = told(after=first[-1]["name"])
    assert names(first) + names(rest) == "abcdfegh"
    assert "more organizations" not in beside
