"""Who may make or change a database and a master key: the service that leads, and nobody else."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import inspect, text

from pulumi_keystore.control_plane.runtime.database import connect
from pulumi_keystore.control_plane.runtime.leadership import Leadership
from pulumi_keystore.control_plane.runtime.opening import opened
from pulumi_keystore.control_plane.runtime.settings import Settings
from pulumi_keystore.errors import Conflict, KeystoreError

KEYSTORE = Path(sys.executable).parent / "keystore"


def alone(_: sqlalchemy.Engine) -> None:
    """Lead where nobody else could."""


@pytest.fixture
def settings(empty_database_url, master_key_file):
    return Settings(database_url=empty_database_url, master_key_file=master_key_file)


def tables(settings):
    engine = connect(settings.database_url)
    found = inspect(engine).get_table_names()
    engine.dispose()
    return found


def test_a_service_that_does_not_lead_makes_no_table_and_no_master_key(settings):
    engine, first, second = connect(settings.database_url), Leadership(), Leadership()
    first.acquire(engine, 0, print)
    waiting = opened(settings, lambda own: second.acquire(own, 0.1, print))
    with pytest.raises(Conflict, match="another control plane is running"), waiting:
        pass
    first.release()
    engine.dispose()
    assert tables(settings) == []
    assert not settings.master_key_file.parent.exists()


def test_a_service_with_the_wrong_master_key_is_refused_before_it_waits_for_the_lead(settings, tmp_path):
    with opened(settings, alone):
        pass
    other = Settings(database_url=settings.database_url, master_key_file=tmp_path / "other.key")
    other.master_key_file.write_text("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
    other.master_key_file.chmod(0o600)

    def never(_):
        raise AssertionError("it waits for the lead")

    with pytest.raises(KeystoreError, match="does not open with this master key"), opened(other, never):
        pass


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o604, 0o660])
def test_a_master_key_that_others_can_read_or_change_is_refused(settings, mode):
    with opened(settings, alone):
        pass
    settings.master_key_file.chmod(mode)
    with (
        pytest.raises(KeystoreError, match="can be read or changed by others; run `chmod 600"),
        opened(settings, alone),
    ):
        pass
    settings.master_key_file.chmod(0o640)
    with opened(settings, alone):
        pass


def test_who_does_not_lead_takes_all_as_it_is(settings):
    with pytest.raises(KeystoreError, match="schema is of version none"), opened(settings):
        pass
    assert tables(settings) == []
    assert not settings.master_key_file.parent.exists()
    with opened(settings, alone):
        pass
    with opened(settings) as database, database.plane.transaction() as session:
        assert session.scalar(text("select count(*) from organizations")) == 0


def test_a_service_that_is_older_than_its_database_does_not_start(settings):
    with opened(settings, alone) as database, database.plane.transaction() as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    told = "is of version 9999, which this program does not know; it was upgraded"
    with pytest.raises(KeystoreError, match=told), opened(settings, alone):
        pass


def test_a_token_for_a_mistyped_data_folder_makes_no_database(tmp_path):
    folder = tmp_path / "tpyo"
    words = ["token", "create", "admin", "--role", "provider-admin", "--local", "--data", str(folder)]
    done = subprocess.run([KEYSTORE, *words], env={}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    told, hint = done.stderr.splitlines()
    assert told == f"error: there is no database in the data folder {folder}"
    assert "keystore serve" in hint
    assert not folder.exists()
