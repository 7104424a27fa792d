"""The language host chooses a program's Python as Pulumi's own does, whichever of the two is used here."""

import sys
from pathlib import Path

import pytest
from keystore_harness.engine import PulumiStack

PROJECT = """\
name: choosing
runtime:
  name: python
  options:
    {options}
"""


@pytest.fixture
def project(tmp_path, engine):
    """Preview a program that only imports Pulumi, in a folder below one with a virtual environment that works."""
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "__main__.py").write_text("import pulumi\n")

    def preview(*options, path="/usr/bin:/bin"):
        (folder / "Pulumi.yaml").write_text(PROJECT.format(options="\n    ".join(options)))
        with PulumiStack(engine, folder, tmp_path / "state", {"PATH": f"{engine}:{path}"}) as stack:
            return stack.run("preview", check=False)

    return preview


def test_the_virtual_environment_is_the_one_that_the_project_names(project):
    done = project("toolchain: pip", "virtualenv: ../.venv")
    assert done.returncode == 0, done.stdout


def test_no_folder_above_is_searched_for_a_virtual_environment(project):
    """One is made beside the program instead, in which there is no Pulumi."""
    done = project("toolchain: pip", "virtualenv: .venv")
    assert done.returncode != 0
    assert "Creating virtual environment" in done.stdout


@pytest.mark.parametrize("tool", ["uv", "poetry"])
def test_where_no_tool_is_named_the_lock_file_above_chooses_it(project, tmp_path, tool):
    (tmp_path / f"{tool}.lock").touch()
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'above'\nversion = '1'\n")
    done = project("virtualenv: ../.venv")
    assert done.returncode != 0
    assert f"`{tool}`" in done.stdout or f"'{tool}'" in done.stdout
    assert project("toolchain: pip", "virtualenv: ../.venv").returncode == 0
