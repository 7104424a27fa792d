"""The command: every scenario is played, and its reports say what happened."""

import re
import subprocess
import sys
from pathlib import Path

import junitparser
import pytest
from keystore_harness import theatre
from keystore_harness.errors import HarnessError
from keystore_harness.scenarios import SCENARIOS
from keystore_harness.theatre import Ground, Scenario, Settings, Theatre

from tests.conftest import WHOLE

COMMAND = str(Path(sys.executable).parent / "keystore-harness")


def run(*arguments: str, timeout: float = 280):
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


# A short run plays every seventh one; `make torture` all of them.
NAMES = list(SCENARIOS) if WHOLE else list(SCENARIOS)[10::7]


@pytest.fixture(scope="module")
def played(tmp_path_factory, toxiproxy):
    """Scenarios, played by one command: what it said, its page, and its results by their names."""
    folder = tmp_path_factory.mktemp("scenarios")
    page, results = folder / "timeline.html", folder / "results.xml"
    arguments = ("run", *NAMES, "--keys", "250", "--seconds", "3", "--html", str(page), "--junit", str(results))
    done = run(*arguments, timeout=2400)
    cases = {case.name: case for suite in junitparser.JUnitXml.fromfile(str(results)) for case in suite}
    return done, page.read_text(), cases


@pytest.mark.timeout(2500)
@pytest.mark.parametrize("name", NAMES)
def test_scenario(name, played):
    done, page, cases = played
    assert cases[name].is_passed, (cases[name].result, done.stderr[-6000:])
    assert f'<h2 id="{name}">' in page
    # Only a file that exists is linked.
    assert f'<a href="timeline.logs/{name}/service.log">' in page


@pytest.mark.timeout(2500)
def test_all_of_them_make_one_report_that_needs_no_network(played):
    done, page, cases = played
    assert set(cases) == set(NAMES)
    assert done.returncode == 0
    assert done.stderr.count("as expected: ") > len(NAMES)
    assert not re.search(r"(src|href|url|@import)[=( ]*[\"']?(https?:)?//", page)


def test_a_scenario_that_fails_leaves_the_next_one_new_servers(monkeypatch):
    """What it left behind may be anything; nor is Toxiproxy there, and it is needed for faults of the network alone."""

    def missing():
        raise HarnessError("there is no Toxiproxy")

    monkeypatch.setattr(theatre, "find_toxiproxy", missing)
    testbeds = []

    def spoil(stage):
        testbeds.append(stage.testbed)
        stage.expect("the impossible", holds=False)

    def look(stage):
        testbeds.append(stage.testbed)

    plain, network = Ground(), Ground(network=True)
    plays = [(look, plain), (spoil, plain), (look, plain), (look, network)]
    with Theatre(Settings(keys=10)) as one:
        results = [one.play(Scenario("x", "", "", play, ground), print) for play, ground in plays]
    assert [result.outcome for result in results] == ["passed", "failed", "passed", "skipped"]
    assert results[-1].message == "there is no Toxiproxy"
    assert testbeds[0] is testbeds[1]
    assert testbeds[1] is not testbeds[2]


def test_list_names_them_all():
    done = run("list")
    assert done.returncode == 0
    lines = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line[1] != " "}
    assert set(lines) == {"scenario", *SCENARIOS}
    assert lines["slow-network"] == "Toxiproxy"
    assert lines["disk-full"] == "root"
    assert {name for name, scenario in SCENARIOS.items() if scenario.ground.needs} == {
        "slow-network", "disk-full", "destination-lost-near-the-end",
    }  # fmt: skip


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
