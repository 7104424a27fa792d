"""The command: every scenario is played, and its reports say what happened."""

import subprocess
import sys
from pathlib import Path

import junitparser
import pytest
from keystore_harness.scenarios import SCENARIOS

COMMAND = str(Path(sys.executable).parent / "keystore-harness")


def run(*arguments: str, timeout: float = 280):
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name, tmp_path, toxiproxy):
    page, results = tmp_path / "timeline.html", tmp_path / "results.xml"
    done = run("run", name, "--keys", "600", "--seconds", "3", "--html", str(page), "--junit", str(results))
    assert done.returncode == 0, done.stderr
    assert "as expected" in done.stderr
    text = page.read_text()
    assert f'<h2 id="{name}">' in text
    assert "http" not in text.replace("https://127.0.0.1", "")
    document = junitparser.JUnitXml.fromfile(str(results))
    assert (document.tests, document.failures, document.errors, document.skipped) == (1, 0, 0, 0)


def test_list_names_them_all():
    done = run("list")
    assert done.returncode == 0
    assert all(name in done.stdout.replace("\n", "") for name in ("outage", "slow-network"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "nonsense"), "no scenario 'nonsense'; `keystore-harness list` shows them"),
        (("run", "outage", "--driver", "magic"), "no driver 'magic'; expected process or container"),
        (("run", "outage", "--html", "/nowhere/x.html"), "no folder /nowhere to write x.html to"),
        (("run", "outage", "--keys", "3"), "Invalid value for '--keys'"),
        (("obtain", "money"), "nothing called 'money' to obtain; expected toxiproxy"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments, says, toxiproxy):
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
