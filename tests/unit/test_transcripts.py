"""Every command is shown in a transcript, so that what it says is read before a user reads it."""

import re

import typer

from pulumi_keystore.cli import app
from tests.conftest import ROOT


def commands(command, words=()):
    if not hasattr(command, "commands"):
        yield " ".join(words)
    for name, further in getattr(command, "commands", {}).items():
        if not further.hidden:
            yield from commands(further, (*words, name))


def test_every_command_is_shown_in_a_transcript():
    texts = [path.read_text() for path in (ROOT / "tests/integration/transcripts").glob("*.txt")]
    shown = {typed for text in texts for typed in re.findall(r"^\$ keystore (.*)$", text, re.MULTILINE)}
    known = set(commands(typer.main.get_command(app)))
    assert {name for name in known if not any(f"{typed} ".startswith(f"{name} ") for typed in shown)} == set()
