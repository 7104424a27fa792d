"""One place, one keystore, whatever namespace and mount are said to be; and what is pinned is pinned with its namespace."""

from math import inf

import pytest
from alembic import command
from keystore_harness import CertificateAuthority
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from pulumi_keystore.control_plane.keystores import clean_ups, fencing, opening
from pulumi_keystore.control_plane.keystores.tables import CleanUp, JournalledToken, Side
from pulumi_keystore.control_plane.organizations.tables import _PATH, Keystore, Organization
from pulumi_keystore.control_plane.runtime.database import _schema, connect, upgrade_schema
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.requests import Response
from tests.flows import drive


@pytest.fixture
def plane(database_url, master_key_file):
    settings = Settings(database_url=database_url, master_key_file=master_key_file, retry_s=0.1, request_s=1)
    with opened(settings, lambda _: None) as database:
        with database.plane.transaction() as session:
            session.add_all(Organization(id=number, name=f"o{number}", environment="cloud") for number in (1, 2))
        yield database.plane


def keystore(name, namespace, mount, cluster_id="c", owner=1):
    issued = CertificateAuthority().issue("acme")
    return Keystore(
        organization_id=owner, name=name, kind="provider", cluster_id=cluster_id, namespace=namespace, mount=mount,
        role="r", kv_version=1, address="https://vault.example.com:8200", certificate_pem=issued.certificate_pem,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("", "kv"), ("", "kv")),
        (("", "ns1/kv"), ("ns1", "kv")),
        (("ns1", "child/kv"), ("ns1/child", "kv")),
        (("", "ns1/child/a/b"), ("ns1/child/a", "b")),
    ],
)
def test_the_database_takes_one_place_once(plane, one, other):
    with plane.transaction() as session:
        session.add(keystore("first", *one))
    with pytest.raises(IntegrityError, match="ix_keystores_place"), plane.transaction() as session:
        session.add(keystore("second", *other))


def test_the_database_takes_places_that_only_look_alike_and_knows_their_paths_as_we_do(plane):
    rows = [
        keystore("a", "", "kv"), keystore("b", "ns1", "kv"), keystore("c", "NS1", "kv"), keystore("d", "ns1", "KV"),
        keystore("e", "ns1/child", "kv"), keystore("f", "ns1", "kv", "another"), keystore("g", "ns1", "kv", owner=2),
        keystore("h", "", None, None), keystore("i", "", None, None),
    ]  # fmt: skip
    with plane.transaction() as session:
        session.add_all(rows)
        session.flush()
        paths = dict(list(session.execute(select(Keystore.name, text(_PATH)))))
        assert paths == {row.name: row.path for row in session.scalars(select(Keystore))}
        found = session.scalars(select(Keystore).where(Keystore.name == "e")).one()
        assert opening.place(session.get_one(Organization, 1), found) == Place("c", "ns1/child/kv", "o1")


class Wire:
    """A mock transport: it writes down what is asked, and the token it is asked with; every answer is the same."""

    def __init__(self):
        self.asked = []

    def run_one(self, flow):
        return drive(flow, self.answer)

    def answer(self, request):
        self.asked.append((request.path.partition("?")[0], request.token))
        return Response(200, b'{"cluster_id": "c"}')


def test_each_token_is_ended_in_the_namespace_that_gave_it(plane, monkeypatch):
    monkeypatch.setattr(opening, "endpoint_of", lambda *_: None)
    with plane.transaction() as session:
        row, owner = keystore("first", "ns2", "kv"), session.get_one(Organization, 1)
        session.add(row)
        session.flush()
        for namespace, token in (("", "of the root"), ("ns1", "of before"), ("ns2", "of today")):
            fencing.record(plane, session, row, "somebody", token, "c", namespace)
    wire = Wire()
    fencing.fence(plane, wire, opening.vault_of(plane, owner, row), 1)
    assert wire.asked == [
        ("/v1/sys/health", None),
        ("/v1/auth/token/revoke-self", "of the root"),
        ("/v1/ns1/auth/token/revoke-self", "of before"),
        ("/v1/ns2/auth/token/revoke-self", "of today"),
        ("/v1/sys/health", None),
    ]
    with plane.transaction() as session:
        assert session.scalars(select(JournalledToken)).all() == []


def test_a_token_that_was_ended_is_written_down_no_more(plane):
    with plane.transaction() as session:
        row = keystore("first", "", "kv")
        session.add(row)
        session.flush()
        forget = [fencing.record(plane, session, row, "somebody", f"token {number}", "c", "") for number in range(3)]
    forget[1]()
    forget[1]()
    with plane.transaction() as session:
        assert [each.id for each in session.scalars(select(JournalledToken).order_by(JournalledToken.id))] == [1, 3]


def test_a_clean_up_is_of_the_place_of_its_time(plane, monkeypatch):
    monkeypatch.setattr(opening, "endpoint_of", lambda *_: None)
    with plane.transaction() as session:
        row, owner = keystore("first", "ns1", "kv"), session.get_one(Organization, 1)
        session.add(row)
        session.flush()
        session.add(clean_ups.new("m", row, Side.SOURCE))
        row.namespace, row.mount = "ns1/child", "other"
    with plane.transaction() as session:
        [pending] = session.scalars(select(CleanUp))
        assert clean_ups.list_page(session, owner, 1)[0]["place"] == "ns1/kv/o1/ on cluster c"
    vault = clean_ups.CleanUps(plane)._vault(owner, row, pending, inf)
    assert vault.place == Place("c", "ns1/kv", "o1")
    assert vault.tenancy.namespace == "ns1/child"


def test_rows_of_before_are_in_the_root_namespace(empty_database_url):
    engine = connect(empty_database_url)
    config = _schema()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(text("insert into organizations (id, name, environment) values (1, 'acme', 'cloud')"))
        connection.execute(
            text(
                "insert into keystores (id, organization_id, name, kind, cluster_id, mount)"
                " values (1, 1, 'first', 'provider', 'c', 'archive-keys')"
            )
        )
        connection.execute(
            text(
                "insert into clean_ups (migration_id, keystore_id, cluster_id, mount, side, state)"
                " values ('m', 1, 'c', 'archive-keys', 'source', 'pending')"
            )
        )
    upgrade_schema(engine)
    with engine.connect() as connection:
        assert connection.execute(text("select namespace, mount from keystores")).one() == ("", "archive-keys")
        assert connection.execute(text("select path from clean_ups")).one() == ("archive-keys",)
    engine.dispose()
