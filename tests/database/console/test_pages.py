"""Pages that have much to show stay small, and lead to the rest."""

import re
from datetime import timedelta
from http import HTTPMethod

import httpx
import pytest
from sqlalchemy import func, insert, select

from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.console import keystore_forms, migration_forms, organization_forms
from pulumi_keystore.control_plane.console.access import COOKIE
from pulumi_keystore.control_plane.identity import sessions, tokens
from pulumi_keystore.control_plane.monitoring.tables import Incident, KeystoreHealth
from pulumi_keystore.control_plane.organizations.tables import HistoryEntry, Keystore, Organization
from tests.database.served import Bridge

MANY = 600
LONG = "vault-a.example.com (https://vault-a.example.com:8200): " + "the certificate has expired; " * 6


@pytest.fixture
def browser(served, plane):
    """Somebody who is signed in, and an organization of whose keystore there is much to tell."""
    now = now_utc()
    with plane.transaction() as session:
        _, token = tokens.create(session, "test", "ops", "provider-admin")
        session.add(Organization(id=500, name="busy", environment="cloud"))
        session.flush()
        session.add(
            Keystore(
                id=500, organization_id=500, name="first", kind="self-administered", mount="kv", cluster_id="c",
                address="https://vault-a.example.com:8200", certificate_not_after=now + timedelta(days=300),
            )
        )  # fmt: skip
        session.flush()
        session.get_one(Organization, 500).active_keystore_id = 500
        session.add(KeystoreHealth(keystore_id=500, phase=0.0, minute=int(now.timestamp() // 60), online=True,
                                   seconds=0.1, since=now, tested_at=now))  # fmt: skip
        session.execute(
            insert(HistoryEntry),
            [{"organization_id": 500, "at": now, "actor": "ops", "action": f"Keystore edited {number}", "detail": LONG}
             for number in range(MANY)],
        )  # fmt: skip
        session.execute(
            insert(Incident),
            [{"keystore_id": 500, "begun_at": now - timedelta(hours=number + 2), "reason": "Host unavailable",
              "ended_at": now - timedelta(hours=number + 1), "cause": "expired", "detail": LONG, "alerts": 2}
             for number in range(MANY)],
        )  # fmt: skip
    with httpx.Client(transport=Bridge(served[0]), base_url="http://127.0.0.1", follow_redirects=True) as browser:
        browser.post("/console/sign-in", data={"token": token})
        yield browser


@pytest.mark.parametrize(
    "path",
    ["", "?period=month", "/live", "/history", "/keystores/first", "/keystores/first?period=day", "/keystores/first/live", "/verify", "/register",
     "/migrate", "/keystores/first/edit", "/keystores/first/alerts", "/keystores/first/accept-cluster"],
)  # fmt: skip
def test_a_page_stays_under_100_kb(browser, path):
    answer = browser.get(f"/console/organizations/busy{path}")
    assert answer.status_code == 200
    assert "busy" in answer.text
    assert len(answer.content) < 100_000, f"{len(answer.content):,}"


def test_the_whole_history_is_reached_page_by_page(browser):
    path, seen = "/console/organizations/busy/history", []
    while path:
        text = browser.get(path).text
        seen += map(int, re.findall(r"Keystore edited (\d+)<", text))
        older = re.search(r'rel="next" href="([^"]+)"', text)
        path = older and older[1]
    assert seen == list(range(MANY))[::-1]
    assert "There are no older entries." in browser.get("/console/organizations/busy/history?before=1").text
    assert "Latest entries" in browser.get("/console/organizations/busy/history?before=9").text


def test_an_export_in_the_browser_is_whole(browser):
    answer = browser.get("/console/organizations/busy/history.csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="busy-history.csv"'
    assert answer.text.count("Keystore edited") == MANY


def test_all_incidents_are_reached_page_by_page(browser):
    path, seen = "/console/organizations/busy/keystores/first", 0
    while path:
        text = browser.get(path).text
        seen += text.count("Host unavailable</td>") or text.count('data-label="Reason"')
        older = re.search(r'rel="next" href="([^"]+)"', text)
        path = older and older[1].replace("&amp;", "&")
    assert seen == MANY


@pytest.mark.parametrize("method", sorted({*HTTPMethod} - {HTTPMethod.HEAD}))
@pytest.mark.parametrize("path", ["/console/x", "/console/organizations/busy/no/such", "/console/static/x"])
def test_under_an_unknown_path_there_is_a_page_for_whatever_is_sent(browser, method, path):
    answer = browser.request(method, path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert ("Sign out" in answer.text) == ("static" not in path)


def test_a_browser_gets_a_page_for_any_mistyped_address_and_programs_a_problem(browser):
    shown = browser.get("/consol", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (shown.status_code, shown.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "no such page" in shown.text
    for path, accepted in (("/consol", "*/*"), ("/v1/nothing", "text/html")):
        answer = browser.get(path, headers={"Accept": accepted})
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.status_code in (401, 404)


def test_a_form_that_no_page_takes_is_answered_by_a_page(browser):
    answer = browser.post("/console/organizations/busy")
    assert answer.status_code == 404
    assert "no such page" in answer.text


ROOMS = (organization_forms, keystore_forms, migration_forms)
FORMS = sorted({route.path for room in ROOMS for route in room.router.routes if "POST" in route.methods})


def sign_in(served, plane, role, organization=None):
    with plane.transaction() as session:
        _, token = tokens.create(session, "test", role, role, organization)
    browser = httpx.Client(transport=Bridge(served[0]), base_url="http://127.0.0.1")
    assert browser.post("/console/sign-in", data={"token": token}).status_code == 303
    return browser, sessions.form_token(browser.cookies[COOKIE])


@pytest.mark.parametrize(
    ("role", "organization", "with_token", "status"),
    [
        ("viewer", None, True, 403),
        ("authority", None, True, 403),
        ("customer-cloud-admin", "other", True, 404),  # for them there is no such organization
        ("provider-admin", None, False, 403),
    ],
)
def test_no_form_does_anything_for_who_may_not_send_it(served, plane, browser, role, organization, with_token, status):
    """Every form there is: of who may look only, of another organization, and sent by another site."""
    assert len(FORMS) > 15
    mine, token = sign_in(served, plane, role, organization)
    with plane.transaction() as session:
        before = session.scalar(select(func.count()).select_from(HistoryEntry))
    for path in FORMS:
        target = path.replace("{organization}", "busy").replace("{name}", "first")
        answer = mine.post(target, data={"form_token": token if with_token else "wrong"})
        expected = 403 if path == "/console/create" else status
        assert answer.status_code == expected, (path, answer.status_code)
    mine.close()
    with plane.transaction() as session:
        assert session.scalar(select(func.count()).select_from(HistoryEntry)) == before
        assert session.scalar(select(func.count()).select_from(Keystore)) == 1
