"""What the command says, as one reads it on a terminal: each transcript is typed against a real service.

A line that begins with `$ ` is typed; what follows is what is shown, standard error first, and the exit status where it
is not 0. `...` stands for what differs each time. The organization is called acme there.
"""

import doctest
import re
import shlex

import pytest

from tests.conftest import ROOT

TRANSCRIPTS = sorted((ROOT / "tests/integration/transcripts").glob("*.txt"))
COLUMNS = 80
_SHOWN = doctest.OutputChecker()
_AS_READ = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def steps(text):
    """Return what is typed in a transcript, and what is shown after each."""
    _, *parts = re.split(r"^\$ keystore ?", text, flags=re.MULTILINE)
    return [(typed, shown.strip("\n") + "\n") for typed, _, shown in (part.partition("\n") for part in parts)]


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_command_says(customer, admin_token, path):
    acme = customer(25, keystores=("first", "second"))
    for typed, shown in steps(path.read_text()):
        arguments = [argument.replace("acme", acme.name) for argument in shlex.split(typed)]
        done = acme.testbed.service.run(*arguments, token=admin_token, check=False, columns=COLUMNS)
        said = (done.stderr + done.stdout).replace(acme.name, "acme").strip("\n") + "\n"
        if done.returncode:
            said += f"[{done.returncode}]\n"
        for line in done.stdout.splitlines():
            assert len(line.replace(acme.name, "acme")) <= COLUMNS, line
        assert _SHOWN.check_output(shown, said, _AS_READ), f"$ keystore {typed}\n{said}\ninstead of\n\n{shown}"
