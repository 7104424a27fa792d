"""A process that is forked from a warm one is what a started one is."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from keystore_harness import program, wait_until, workspace
from keystore_harness.program import Program

from tests.conftest import ROOT

WHO = "tests.harness.whoami"


@pytest.fixture(params=[False, True], ids=["started", "forked"])
def whoami(request, monkeypatch):
    """The program, either way."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(program, "_forked", False)
    if request.param:
        program.fork_from_now_on()
    made = Program(module=WHO, environment={"SCOPE": "its own"})
    assert made.forked == request.param
    return made


@pytest.fixture
def log():
    return workspace.current().subfolder("program") / "log"


def test_both_are_the_same(monkeypatch, log):
    monkeypatch.chdir(ROOT)
    said = []
    for forked in (False, True):
        monkeypatch.setattr(program, "_forked", forked)
        text = Program(module=WHO, environment={"A": "1"}).result(["0", "two words"], {"PATH": "/bin", "B": "2"}, log)
        said.append(json.loads(text))
    assert said[0]["arguments"] == ["0", "two words"]
    assert said[0]["environment"].items() >= {"A": "1", "B": "2", "PATH": "/bin"}.items()
    leads = [found.pop("leads its session") for found in said]
    assert leads == [False, True]  # a command that is waited for is in its caller's
    assert said[0] == said[1]


def test_its_status_and_its_output(whoami, log):
    process = whoami.start(["7"], {}, log)
    assert process.wait(60) == 7
    assert process.poll() == 7
    first, second = log.read_text().splitlines()
    assert json.loads(first)["leads its session"]
    assert second == "said on the other one"


def test_it_is_killed_told_to_end_and_waited_for(whoami, log):
    for strike, status in ((lambda process: process.kill(), -signal.SIGKILL),
                           (lambda process: process.send_signal(signal.SIGTERM), -signal.SIGTERM)):  # fmt: skip
        log.unlink(missing_ok=True)
        process = whoami.start(["waits"], {}, log)
        wait_until(lambda: log.exists() and "other one" in log.read_text(), "its words")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.poll() is None
        strike(process)
        assert process.wait(60) == status
        strike(process)  # does nothing to another one that has its number now


def test_a_result_that_fails_is_an_error_with_what_it_said(whoami, log):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        whoami.result(["3"], {}, log)
    assert failed.value.returncode == 3
    assert "said on the other one" in failed.value.stderr


def test_what_is_forked_bears_the_mark_of_its_run(whoami, log):
    process = whoami.start(["waits"], workspace.current().environment, log)
    # While the kernel replaces a program by another one, its environment can be read as empty.
    wait_until(lambda: log.exists() and "other one" in log.read_text(), "its words")
    environment = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
    assert f"{workspace.MARK}={workspace.current().folder}" in environment
    process.kill()
    process.wait(60)
