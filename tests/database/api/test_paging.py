"""Lists come page by page, whole and in order, whatever is added meanwhile."""

import csv
import json
import re
import sys
from contextlib import nullcontext
from datetime import timedelta

import pytest

from pulumi_keystore.cli import keystores, main, migrations, organizations
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.identity import tokens
from pulumi_keystore.control_plane.keystores.tables import CleanUp, CleanUpState, Side
from pulumi_keystore.control_plane.migration.tables import Migration
from pulumi_keystore.control_plane.monitoring.tables import Incident
from pulumi_keystore.control_plane.organizations import history, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore
from pulumi_keystore.declarations.migration import Phase, State
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import KeystoreError

EACH = 10


@pytest.fixture
def rows(plane):
    """Ten of everything; several began in the same moment."""
    now = now_utc()
    with plane.transaction() as session:
        owner = registry.find(session, "acme")
        keystore = Keystore(organization_id=owner.id, name="first", kind=Kind.LEGACY)
        session.add(keystore)
        session.flush()
        for number in range(EACH):
            history.append(session, owner.id, "ops", f"Action {number}", "=1+1" if number == 0 else "a, b")
            at = now + timedelta(seconds=number // 4)
            session.add(
                Migration(
                    id=f"{number:036d}", organization_id=owner.id, source_id=1, destination_id=2, source="a",
                    destination="b", state=State.SUCCEEDED, phase=Phase.ENDED, total=0, requested_by="ops",
                    started_at=at,
                )
            )  # fmt: skip
            state = CleanUpState.PENDING if number % 2 else CleanUpState.DONE
            session.add(CleanUp(migration_id=f"{number:036d}", keystore_id=keystore.id, side=Side.SOURCE, state=state))
            tokens.create(session, "test", f"token {number}", "viewer")
    return owner.id


def test_a_history_is_whole(client, rows):
    actions = [f"Action {number}" for number in range(EACH)]
    for limit in (1, 2, 3, 4, EACH - 1, EACH, EACH + 1, 1000):
        assert [row["action"] for row in client.history("acme", limit)] == actions[-limit:]
    told = [row["detail"] for row in client.history(None, 1000) if row["action"] == "Token created"]
    assert len(told) == EACH + 2


def test_a_history_is_exported_page_by_page(client, rows, plane):
    [header, *cells] = csv.reader(client.export_history("acme", "csv").splitlines())
    assert header == ["Date & Time", "User", "Action", "Action Details"]
    assert [row[2] for row in cells] == [f"Action {number}" for number in range(EACH)]
    assert [row[3] for row in cells] == ["'=1+1", *["a, b"] * (EACH - 1)]
    assert json.loads(client.export_history("acme", "json")) == client.history("acme", 1000)
    assert json.loads(client.export_history("other", "json")) == []
    assert client.export_history("other", "csv").splitlines() == ["Date & Time,User,Action,Action Details"]
    pages = history.pages(plane, rows)
    seen = next(pages)
    with plane.transaction() as session:
        history.append(session, rows, "ops", "while it is sent")
    assert [row["action"] for page in (seen, *pages) for row in page] == [f"Action {number}" for number in range(EACH)]


def test_migrations_are_whole(client, rows):
    ids = [f"{number:036d}" for number in range(EACH)][::-1]
    assert [row["id"] for row in client.migrations("acme")] == ids
    assert [row["id"] for row in client.migrations("acme", 4)] == ids[:4]
    page = client.request("GET", "organizations", "acme", "migrations", after=ids[4], limit=2)
    assert [row["id"] for row in page] == ids[5:7]


@pytest.mark.parametrize(
    ("command", "field"),
    [("history acme", "action"), ("incidents acme first", "begun_at"), ("migration list acme", "id")],
)
def test_a_list_of_the_command_leads_to_what_is_older(client, rows, plane, monkeypatch, capsys, command, field):
    with plane.transaction() as session:
        for number in range(EACH):
            session.add(Incident(keystore_id=1, begun_at=now_utc() - timedelta(hours=number), ended_at=now_utc()))
        session.get_one(Keystore, 1).kind = Kind.SELF_ADMINISTERED
    for module in (organizations, keystores, migrations):
        monkeypatch.setattr(module, "ask", lambda: nullcontext(client))
    seen, last = [], None
    while True:
        begun = ["--before", last] if last else []
        monkeypatch.setattr(sys, "argv", ["keystore", *command.split(), "--limit=4", "--format=json", *begun])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        shown = capsys.readouterr()
        # The service logs to the same place here.
        _, begin, rest = shown.out.partition("[\n")
        seen.append([row[field] for row in json.loads(begin + rest)])
        older = re.fullmatch(r"there are older ones: see them with `--before (\S+)`\n", shown.err)
        if older is None:
            assert shown.err == ""
            break
        last = older[1]
    assert [len(page) for page in seen] == [4, 4, 2]
    assert len({row for page in seen for row in page}) == EACH


def test_clean_ups_are_whole(client, rows):
    assert [row["id"] for row in client.clean_ups("acme", ended=True)] == list(range(1, EACH + 1))
    assert [row["id"] for row in client.clean_ups("acme")] == [2, 4, 6, 8, 10]
    assert client.clean_ups("other", ended=True) == []


def test_tokens_are_whole(client, rows):
    assert [row["name"] for row in client.tokens()] == ["authority", "ops", *(f"token {n}" for n in range(EACH))]


@pytest.mark.parametrize(
    ("path", "begin"),
    [
        (("organizations", "acme", "migrations"), "no-such-migration"),
        (("organizations", "other", "migrations"), "0" * 36),
        (("tokens",), "nosuch"),
        (("tokens",), "\0"),
    ],
)
def test_a_page_after_what_is_not_there_is_refused(client, rows, path, begin):
    with pytest.raises(KeystoreError) as caught:
        client.request("GET", *path, after=begin)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    "path",
    [
        ("organizations",),
        ("history",),
        ("tokens",),
        *(("organizations", "acme", noun) for noun in ("history", "migrations", "clean-ups")),
    ],
    ids="/".join,
)
@pytest.mark.parametrize("limit", [0, -1, 1001, 10**400, "many"])
def test_a_page_is_no_longer_than_it_may_be(client, path, limit):
    with pytest.raises(KeystoreError) as caught:
        client.request("GET", *path, limit=limit)
    assert caught.value.status == 422
    assert client.request("GET", *path, limit=1) is not None
