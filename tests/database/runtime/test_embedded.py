"""The embedded PostgreSQL starts wherever it can, and says in one line where it cannot."""

import os
import subprocess
import sys

import pytest

from pulumi_keystore.control_plane.runtime.embedded_postgres import EmbeddedPostgres
from pulumi_keystore.errors import KeystoreError

START = """
import sys
from pathlib import Path
from pulumi_keystore.control_plane.runtime.embedded_postgres import EmbeddedPostgres
EmbeddedPostgres(Path(sys.argv[1])).stop()
"""


def test_a_locale_that_is_not_installed_is_no_obstacle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("d")
    environment = {**os.environ, "LANG": "xx_YY.UTF-8", "LC_ALL": "xx_YY.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-c", START, str(folder)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "postgres" / "PG_VERSION").exists()
    # In the folder for temporary files another user of the machine may have made it.
    assert (folder / ".postgres.lock").exists()


@pytest.mark.parametrize("name", ["with space", "quo'te", 'dou"ble'])
def test_a_path_that_the_database_cannot_take_is_told(tmp_path, name):
    with pytest.raises(KeystoreError, match="holds a space or a quote"):
        EmbeddedPostgres(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_told(tmp_path_factory):
    file = tmp_path_factory.mktemp("d") / "file"
    file.write_text("in the way")
    with pytest.raises(KeystoreError, match="cannot be made"):
        EmbeddedPostgres(file / "data")


def test_a_database_that_does_not_start_is_told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("d")
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("9.1")
    with pytest.raises(KeystoreError, match="does not start"):
        EmbeddedPostgres(folder)
