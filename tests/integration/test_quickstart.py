"""`keystore quickstart` starts everything, says what to do, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from keystore_harness import wait_until

COMMAND = Path(sys.executable).parent / "keystore"


@pytest.fixture
def started(tmp_path):
    """The command while it runs: its process, its folder and what it has said."""
    folder, said = tmp_path / "tried", tmp_path / "said"
    with said.open("wb") as output:
        # Whoever runs the tests in the background has them begin with SIGINT ignored.
        command = ["env", "--default-signal=INT", COMMAND, "quickstart", folder]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_until(lambda: "Ctrl-C" in said.read_text() or process.poll() is not None, "the command", 120)
            yield process, folder, said
        finally:
            process.kill()
            process.wait()


def commands(said):
    """What it tells one to type."""
    lines = [line.partition("#")[0].strip() for line in said.read_text().splitlines() if line.startswith("    ")]
    return "\n".join(line.replace("pulumi up", "pulumi up --yes --non-interactive") for line in lines)


def test_what_it_says_works_and_nothing_is_left(started, engine, tmp_path):
    process, folder, said = started
    environment = {**os.environ, "PATH": f"{engine}{os.pathsep}{os.environ['PATH']}", "PULUMI_HOME": str(tmp_path)}
    script = f"set -euo pipefail\n{commands(said)}\nkeystore status acme\n"
    done = subprocess.run(
        ["bash", "-c", script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"active keystore +first \(self-administered\)", done.stdout)
    assert "Migration succeeded" in done.stdout
    assert re.search(r"active keystore +second \(self-administered\)", done.stdout)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, said.read_text()
    assert not folder.exists()
    assert "everything is removed" in said.read_text()


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    done = subprocess.run([COMMAND, "quickstart", tmp_path], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "cannot make the folder" in done.stderr
    assert "name another folder" in done.stderr
    assert (tmp_path / "mine").read_text() == "x"
