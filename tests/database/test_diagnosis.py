"""What `keystore doctor` finds in an installation."""

import datetime as dt
from functools import partialmethod

import pytest
from keystore_harness import Mailbox
from keystore_harness.ports import free_port
from sqlalchemy import text

from pulumi_keystore.control_plane import diagnosis
from pulumi_keystore.control_plane.diagnosis import Verdict, examine
from pulumi_keystore.control_plane.organizations import history
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.vault.resolver import Resolver


@pytest.fixture
def settings(database_url, master_key_file, tmp_path):
    made = Settings(database_url=database_url, master_key_file=master_key_file, data=tmp_path, smtp_url="")
    with opened(made, lambda _: None):
        pass
    return made


def found(settings, **options):
    return {finding.subject: finding for finding in examine(settings, **options)}


def test_an_installation_without_a_service_and_mails_is_told_so_and_not_wrong(settings):
    by_subject = found(settings)
    assert {subject: finding.verdict for subject, finding in by_subject.items()} == {
        "settings": Verdict.OK,
        "database": Verdict.OK,
        "schema": Verdict.OK,
        "key file": Verdict.OK,
        "master key": Verdict.OK,
        "service": Verdict.WARNING,
        "clock": Verdict.OK,
        "mail": Verdict.WARNING,
    }
    assert "KEYSTORE_SMTP_URL" in by_subject["mail"].hint


def test_another_master_key_is_wrong(settings, tmp_path):
    other = tmp_path / "other.key"
    other.write_text("A" * 43 + "=")
    other.chmod(0o600)
    by_subject = found(settings.model_copy(update={"master_key_file": other}))
    assert {subject for subject, finding in by_subject.items() if finding.verdict is Verdict.WRONG} == {"master key"}
    assert "does not open with this master key" in by_subject["master key"].detail


def test_a_key_file_that_is_missing_hides_nothing_else(settings, tmp_path):
    by_subject = found(settings.model_copy(update={"master_key_file": tmp_path / "gone.key"}))
    assert by_subject["key file"].verdict is Verdict.WRONG
    assert "gone.key is missing" in by_subject["key file"].detail
    assert {*by_subject} == {"settings", "database", "schema", "key file", "service", "clock", "mail"}


def test_beside_a_database_that_is_down_everything_else_is_looked_at(settings):
    url = f"postgresql://keystore:CANARY@localhost:{free_port()}/keystore"
    with Mailbox() as mailbox:
        by_subject = found(settings.model_copy(update={"database_url": url, "smtp_url": mailbox.url}))
    assert {subject: finding.verdict for subject, finding in by_subject.items()} == {
        "settings": Verdict.OK,
        "database": Verdict.WRONG,
        "key file": Verdict.OK,
        "clock": Verdict.WARNING,
        "mail": Verdict.OK,
        "DNS": Verdict.OK,
    }
    assert "2 names resolve to permitted addresses" in by_subject["DNS"].detail
    assert "UTC; there is no database to compare it with" in by_subject["clock"].detail
    assert "CANARY" not in str(by_subject)


def test_a_database_whose_name_does_not_resolve_is_a_matter_of_dns(settings):
    by_subject = found(settings.model_copy(update={"database_url": "postgresql://db.invalid/keystore"}))
    assert by_subject["database"].verdict is Verdict.WRONG
    assert by_subject["DNS"].detail == "db.invalid: the name does not resolve"


def test_settings_that_cannot_be_used_are_all_that_is_said(settings):
    by_subject = found(settings.model_copy(update={"host_map": "none"}))
    assert {subject: finding.verdict for subject, finding in by_subject.items()} == {"settings": Verdict.WRONG}


def test_an_organization_that_does_not_exist_is_wrong(settings):
    assert found(settings, organization="nobody")["organization"].verdict is Verdict.WRONG


def test_a_clock_behind_the_history_is_wrong(settings, monkeypatch):
    with opened(settings) as database, database.plane.transaction() as session:
        history.append(session, history.SERVICE, "ops", "Organization created")
    monkeypatch.setattr(diagnosis, "now_utc", lambda: dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    assert found(settings)["clock"].verdict is Verdict.WRONG


def test_a_mail_server_is_greeted_and_gets_no_mail(settings):
    with Mailbox() as mailbox:
        finding = found(settings.model_copy(update={"smtp_url": mailbox.url}))["mail"]
        assert (finding.verdict, mailbox.messages) == (Verdict.OK, [])
    gone = found(settings.model_copy(update={"smtp_url": mailbox.url}))["mail"]
    assert gone.verdict is Verdict.WRONG


def test_a_folder_that_everybody_can_write_to_is_wrong(settings, tmp_path):
    tmp_path.chmod(0o777)
    assert found(settings)["data folder"].verdict is Verdict.WRONG


def test_of_many_organizations_the_first_are_looked_at_or_the_one_that_is_named(settings, monkeypatch):
    monkeypatch.setattr(diagnosis, "MOST", 2)
    with opened(settings) as database, database.plane.transaction() as session:
        for number in range(1, 4):
            session.add(Organization(id=number, name=f"org-{number}", environment="cloud"))
        session.flush()
        row = Keystore(organization_id=1, name="first", kind="legacy", revision=1)
        session.add(row)
        session.flush()
        session.get(Organization, 1).active_keystore_id = row.id
    by_subject = found(settings)
    assert by_subject["keystore org-1/first"].verdict is Verdict.OK
    assert by_subject["organization org-2"].verdict is Verdict.WARNING
    assert "organization org-3" not in by_subject
    assert "first 2" in by_subject["organizations"].detail
    assert "organization org-3" in found(settings, organization="org-3")


def test_a_schema_of_a_later_version_is_wrong(settings):
    with opened(settings) as database:
        engine = database.plane.engine
        with engine.begin() as connection:
            ours = connection.scalar(text("select version_num from alembic_version"))
            connection.execute(text("update alembic_version set version_num = '9999'"))
        by_subject = found(settings)
        with engine.begin() as connection:  # others use this database after us
            connection.execute(text("update alembic_version set version_num = :ours"), {"ours": ours})
    assert {subject for subject, finding in by_subject.items() if finding.verdict is Verdict.WRONG} == {"schema"}
    assert "9999" in by_subject["schema"].detail
    assert {"key file", "service", "clock", "mail"} <= {*by_subject}


@pytest.fixture
def keystores(settings, monkeypatch):
    """Two keystores of an organization, of which the first is in use; return what a test finds, by name."""
    with opened(settings) as database, database.plane.transaction() as session:
        session.add(Organization(id=1, name="acme", environment="cloud"))
        session.flush()
        for number, name in enumerate(("first", "second"), 1):
            address = f"https://{name}.example.com:8200"
            row = Keystore(id=number, organization_id=1, name=name, kind="self-administered", address=address,
                           mount="kv", cluster_id=name, revision=1)  # fmt: skip
            session.add(row)
            session.flush()
        session.get(Organization, 1).active_keystore_id = 1
    well = {"status": "Online"}
    tested = {"first": well, "second": well}
    monkeypatch.setattr(diagnosis.HealthChecks, "look", lambda *given: tested[given[-1].name])
    return tested


@pytest.mark.parametrize(("name", "verdict"), [("first", Verdict.WRONG), ("second", Verdict.WARNING)])
def test_every_keystore_is_tested_and_one_in_use_that_is_away_is_wrong(settings, keystores, name, verdict):
    keystores[name] = {"status": "Offline", "reason": "Host unavailable", "detail": "sealed"}
    by_subject = found(settings)
    for each in ("first", "second"):
        finding = by_subject[f"keystore acme/{each}"]
        assert finding.verdict is (verdict if each == name else Verdict.OK)
    assert "sealed" in by_subject[f"keystore acme/{name}"].detail


@pytest.mark.parametrize(
    ("leads_to", "verdict", "says"),
    [
        (["93.184.215.14"], Verdict.OK, "2 names resolve"),
        (["10.0.0.1"], Verdict.WRONG, "not a public address"),
        (OSError("no such name"), Verdict.WRONG, "second.example.com"),
    ],
)
def test_where_names_lead_is_looked_up(settings, keystores, monkeypatch, leads_to, verdict, says):
    def look_up(host, port):
        if isinstance(leads_to, OSError):
            raise leads_to
        return leads_to

    monkeypatch.setattr(Resolver, "__init__", partialmethod(Resolver.__init__, lookup=look_up))
    finding = found(settings)["DNS"]
    assert finding.verdict is verdict
    assert says in finding.detail
