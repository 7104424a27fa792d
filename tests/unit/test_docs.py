"""What the documentation shows is true: programs run, commands exist, links lead somewhere."""

import ast
import asyncio
import re
import shlex
from base64 import b64encode
from pathlib import Path

import pulumi
import pytest
import typer
from keystore_harness import CertificateAuthority

from docs.error_page import NOTES
from pulumi_keystore.cli import app
from pulumi_keystore.control_plane.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "stacks").rglob("*.md"),
        ROOT / "harness" / "README.md",
    ]
)


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append((f"{page.relative_to(ROOT)} {number}", text))
    return found


class Mocks(pulumi.runtime.Mocks):
    """The engine is mocked here alone: the same resources run on the real one in tests/integration/test_pulumi.py."""

    def new_resource(self, args):
        return f"{args.name}_id", args.inputs

    def call(self, args):
        return {}


PROGRAMS = [block for block in blocks("python") if "from pulumi_keystore import" in block[1]]


@pytest.mark.parametrize("program", [text for _, text in PROGRAMS], ids=[name for name, _ in PROGRAMS])
def test_a_program_in_the_docs_runs_with_a_mock_engine(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme.p12").write_bytes(CertificateAuthority().issue("acme").pkcs12("pw"))
    # The mock mode of the SDK asks for the thread's event loop, which whoever used asyncio before has taken away.
    asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(Mocks())
    pulumi.runtime.set_all_config({"project:password": "pw"}, ["project:password"])
    created: list[str] = []

    @pulumi.runtime.test
    def run():
        before = Mocks.new_resource
        monkeypatch.setattr(Mocks, "new_resource", lambda self, args: (created.append(args.typ), before(self, args))[1])
        exec(compile(program, "docs", "exec"), {})

    run()
    assert any(name.startswith(("pulumi-python:dynamic/keystore:", "keystore:")) for name in created)


def test_the_harness_shows_one_example():
    """It is run by itself, from the wheel, in tests/harness/test_plugin.py."""
    (example,) = [text for name, text in blocks("python") if name.startswith("harness/")]
    assert f"```python\n{example}```" in (ROOT / "docs" / "harness.md").read_text()


def commands() -> list[str]:
    lines = [line for _, text in blocks("console") for line in text.splitlines()]
    inline = [found for page in PAGES for found in re.findall(r"`(keystore [a-z][^`]*)`", page.read_text())]
    return sorted({line for line in [*lines, *inline] if line.startswith("keystore ")})


@pytest.mark.parametrize("line", commands())
def test_a_command_in_the_docs_exists_with_its_options(line):
    node, words = typer.main.get_command(app), shlex.split(line.replace("…", "x"), comments=True)[1:]
    while words and hasattr(node, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in node.commands, line
        node = node.commands[name]
    options = {spelling for parameter in node.params for spelling in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in options, line


def test_a_link_in_the_docs_leads_to_a_file():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


VAULT_SAYS = {"path is already in use at archive-keys/", "permission denied"}


def quotes() -> list[str]:
    """Return the messages quoted on the page of errors, and in the first column of each resource's table of errors."""
    texts = [looks for looks, _ in NOTES.values()]
    for page in (ROOT / "docs" / "resources").glob("*.md"):
        _, _, table = page.read_text().partition("| error | cause | fix |")
        texts += [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    return [quote for text in texts for quote in re.findall(r"`([^`]+)`", text)]


def test_a_message_quoted_in_the_docs_is_one_that_is_given():
    """… and numbers stand for what is put in; a rule's id and a hint are put beside the message."""
    files = (ROOT / "pulumi_keystore").rglob("*.py")
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    given = "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    parts = {part.strip() for quote in quotes() for part in re.split(r"…|; |\[.*?\]|\d+", quote)} - VAULT_SAYS
    assert len(parts) > 30
    assert [part for part in sorted(parts) if " " in part and part not in given] == []


def test_a_section_of_the_contract_that_the_code_names_exists():
    headings = set(re.findall(r"^#+ (.*)$", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE))
    sources = "".join(path.read_text() for path in (ROOT / "pulumi_keystore").rglob("*.py"))
    named = set(re.findall(r"\(contract: ([^);]+)", sources))
    assert len(named) > 5
    assert named <= headings


def test_a_setting_named_in_the_docs_exists():
    known = {f"KEYSTORE_{name.upper()}" for name in Settings.model_fields}
    known |= {"KEYSTORE_URL", "KEYSTORE_TOKEN", "KEYSTORE_CA_FILE", "KEYSTORE_HARNESS_TOKEN"}
    known.add("KEYSTORE_BINARY")  # the harness's
    for page in PAGES:
        for name in re.findall(r"\bKEYSTORE_[A-Z_]+\b", page.read_text()):
            assert name in known or name == "KEYSTORE_", f"{page.name}: {name}"


def test_the_base64_of_a_file_is_what_a_program_may_give():
    from pulumi_keystore.resources.keystore import _encoded  # noqa: PLC0415

    data = CertificateAuthority().issue("acme").pkcs12("pw")
    path = ROOT / ".pytest_cache" / "example.p12"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    expected = b64encode(data).decode()
    assert _encoded(path) == _encoded(pulumi.FileAsset(str(path))) == _encoded(data) == _encoded(expected) == expected
    path.unlink()
