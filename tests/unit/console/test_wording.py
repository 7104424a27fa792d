"""Errors on pages speak of what is on pages."""

import ast
import re
from pathlib import Path

import pytest

import pulumi_keystore
from pulumi_keystore.control_plane.console.wording import HERE, IN_PLACE, LABELS, here, hint_of, summary_of
from pulumi_keystore.errors import Conflict, InvalidInput

PACKAGE = Path(pulumi_keystore.__file__).parent
TEMPLATES = PACKAGE / "control_plane/console/templates"


def test_a_field_is_called_by_its_label():
    wrong = InvalidInput("address: 'x' is not an address", prop="address")
    assert summary_of(wrong) == "URL: 'x' is not an address"
    assert summary_of(InvalidInput("name: too long", prop="other")) == "Name: too long"
    assert summary_of(Conflict("the keystore 'first' is active")) == "The keystore 'first' is active"
    # An address is written as it is.
    assert summary_of(Conflict("https://v.example.com:8200: sealed")) == "https://v.example.com:8200: sealed"


def test_labels_are_those_of_the_forms():
    text = "".join(path.read_text() for path in TEMPLATES.glob("*.html"))
    shown = dict(re.findall(r'(?:field|area|file)\("(\w+)", "([^"]+)"', text))
    shown |= dict(re.findall(r'<label for="(kind|webhook_format|environment)">([^<]+)<', text))
    shown |= {"destination": "Destination"} if "<legend>Destination</legend>" in text else {}
    for prop, label in LABELS.items():
        assert label.lower() in shown.pop(prop).lower()
    assert shown == {}


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("migrate, do not edit: declare it as a second Keystore", "migrate to it instead (Actions, Migrate Keystore)."),
        (
            "migrate, do not edit: declare it; keys that are lost for good are given up with `keystore key give-up a USER`",
            "(Actions, Migrate Keystore); keys that are lost for good are given up with `keystore key give-up a USER`.",
        ),
        ("watch it with `keystore migration watch acme` and try again when it has ended", "Watch it on the page"),
        ("list them with `keystore organization list`, or declare an Organization", "Choose one on the first page."),
        ("declare a Keystore first", "Register a keystore first (Actions, Register Keystore)."),
        ("unseal the server", "Unseal the server."),
        (None, None),
    ],
)
def test_what_to_do_is_what_can_be_done_here(said, here):
    found = hint_of(Conflict("no", hint=said))
    assert found is None if here is None else here in found


def test_each_hint_that_is_said_otherwise_is_one_that_is_given():
    """A hint that was reworded would be shown with its command again."""
    given = " ".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "wording.py")
    for pattern, _ in HERE:
        literal = re.split(r"[.(\\]", pattern)[0].strip()
        assert literal in given, pattern


def hints():
    """Yield every hint that a form or a page can show, as far as it is written down; X stands for what is put in."""
    rooms = ("control_plane/keystores", "control_plane/migration", "control_plane/monitoring", "vault", "declarations",
             "control_plane/organizations/keystores.py", "control_plane/organizations/maintenance.py")  # fmt: skip
    files = [
        path for room in rooms for path in ([PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).glob("*.py"))
    ]
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                parts = [each for each in ast.walk(node.value) if isinstance(each, ast.Constant | ast.FormattedValue)]
                inner = {id(each) for part in parts if isinstance(part, ast.FormattedValue) for each in ast.walk(part)}
                inner -= {id(part) for part in parts if isinstance(part, ast.FormattedValue)}
                shown = [part for part in parts if id(part) not in inner]
                shown.sort(key=lambda part: (part.lineno, part.col_offset))
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in shown)


def test_no_hint_on_a_page_speaks_of_programs_or_of_commands_for_what_can_be_done_there():
    seen = [hint for hint in hints() if hint]
    assert len(seen) > 60
    for hint in seen:
        said = here(hint_of(Conflict("no", hint=hint)))
        assert not re.search(r"declare|adopt=|HealthMonitor|KeystoreMigration|Pulumi|pulumi", said), hint
        # What is left can be done by a command alone.
        assert all(left.startswith("key ") for left in re.findall(r"`keystore ([^`]*)`", said)), (hint, said)


def test_what_the_console_can_do_is_not_called_a_command_there():
    """What is left of `keystore …` in what the service says can be done by a command alone."""
    alone = "key|clean-up abandon|clean-up list acme --all|serve|worker|test-mail|token|organization|list|migration watch|doctor"
    given = " ".join(
        path.read_text() for path in (PACKAGE / "control_plane").rglob("*.py") if path.name != "wording.py"
    )
    given += (
        " ".join(path.read_text() for path in (PACKAGE / "vault").rglob("*.py")) + (PACKAGE / "causes.py").read_text()
    )
    for command in set(re.findall(r"`keystore ([a-z -]+)", given)):
        text = f"run `keystore {command.strip()} acme`"
        whole = any(re.search(rf"keystore \\?\(?.*{command.split()[0]}", pattern) for pattern, _ in HERE)
        assert here(text) != text or whole or re.match(alone, command), command
    for pattern in IN_PLACE:
        assert re.search(r"`keystore [a-z-]+( [a-z-]+)?", pattern).group() in given, pattern


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("`keystore verify acme` names the users", "Verify Keys in the menu Actions names the users"),
        (
            "an administrator accepts it with `keystore accept-cluster`.",
            "an administrator accepts it with Accept Cluster on the page of the keystore.",
        ),
        ("run `bao operator unseal`", "run `bao operator unseal`"),
    ],
)
def test_a_command_within_a_text_is_called_by_its_action(said, instead):
    assert here(said) == instead
