"""The pytest plugin, the wheel by itself, and what a killed run leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import venv
from pathlib import Path

import psutil
import pytest
from keystore_harness import wait_until, workspace
from keystore_harness.binary import BINARY

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "harness.md"


def ten_lines() -> str:
    """The first example of the page for QA."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


def run_pytest(folder: Path, *options: str, python: str = sys.executable, **environment: str):
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore", *options]
    binary = {name: os.environ[name] for name in (BINARY,) if name in os.environ}
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), **binary, **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False)


def leftovers(folder: Path) -> list[str]:
    """Processes and mounts below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(process.environ().get(workspace.MARK, "")).startswith(str(folder)):
                found.append(process.name())
        except (psutil.Error, OSError):
            continue
    return found + workspace.mounts_below(folder)


def test_the_wheel_alone_passes_the_ten_lines_of_the_docs(tmp_path):
    uv = Path(os.environ.get("UV") or next((Path.home() / ".cache/pulumi-keystore").glob("uv-*/bin/uv")))
    build = [
        str(uv),
        "build",
        "--quiet",
        "--system-certs",
        "--wheel",
        "--out-dir",
        str(tmp_path / "dist"),
        str(ROOT / "harness"),
    ]
    subprocess.run(build, check=True, timeout=200)
    venv.create(tmp_path / "venv", with_pip=False)
    python = str(tmp_path / "venv" / "bin" / "python")
    wheel = f"{next((tmp_path / 'dist').glob('*.whl'))}[openbao]"
    subprocess.run(
        [str(uv), "pip", "install", "--quiet", "--system-certs", "--python", python, wheel], check=True, timeout=280
    )
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "test_outage.py").write_text(ten_lines())
    done = run_pytest(folder, python=python)
    assert " passed" in done.stdout, done.stdout + done.stderr
    assert "failed" not in done.stdout
    assert re.search(r"keystore: driver process, (OpenBao|Vault) \d", done.stdout)
    assert leftovers(folder) == []


def test_a_failure_shows_log_and_timeline_and_keeps_what_was_asked_for(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_it(vault_server):\n    with vault_server.sealed_for_a_while():\n        assert False\n"
    )
    done = run_pytest(tmp_path, "--keystore-keep")
    assert done.returncode == 1
    assert "keystore: timeline" in done.stdout
    assert re.search(r"vault\.example\.com +sealed \(for [\d.]+ s\)", done.stdout)
    assert "end of the log of vault.example.com" in done.stdout
    found = re.search(r"source (\S+); bao status", done.stdout)
    assert found
    assert Path(found[1]).stat().st_mode & 0o077 == 0
    assert "BAO_TOKEN" in Path(found[1]).read_text()
    assert "BAO_TOKEN" not in done.stdout
    assert leftovers(tmp_path) != []
    command = [str(Path(sys.executable).parent / "keystore-harness"), "clean", "--kept"]
    subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, check=True, capture_output=True, timeout=60)
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk needs root to be mounted")
def test_a_killed_run_is_cleaned_up_by_the_next(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import time\n"
        "def test_it(make_vault_server):\n"
        "    with make_vault_server(disk_mb=64).paused():\n"
        "        open('ready', 'w').close()\n"
        "        time.sleep(600)\n"
    )
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL) as killed:
        wait_until((tmp_path / "ready").exists, "the fault", 60)
        killed.send_signal(signal.SIGKILL)
    assert len(leftovers(tmp_path)) >= 2
    (tmp_path / "test_it.py").write_text("def test_it(vault_server):\n    assert vault_server.active\n")
    assert run_pytest(tmp_path).returncode == 0
    assert leftovers(tmp_path) == []
    assert list(tmp_path.glob("keystore-harness-*/run-*")) == []


def test_a_killed_run_leaves_no_container_to_the_next(tmp_path, docker):
    from keystore_harness.drivers.daemon import client  # noqa: PLC0415

    script = (
        "import time\nfrom keystore_harness import VaultServer\n"
        "with VaultServer(driver='container'):\n    open('ready', 'w').close(); time.sleep(600)\n"
    )
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=env) as killed:
        wait_until((tmp_path / "ready").exists, "the container")
        killed.kill()
    (run,) = tmp_path.glob("keystore-harness-*/run-*")
    of_it = {"all": True, "filters": {"label": f"{workspace.LABEL}={run}"}}
    daemon = client()
    assert len(daemon.containers.list(**of_it)) == 1
    command = [sys.executable, "-c", "from keystore_harness import workspace; workspace.current()"]
    subprocess.run(command, env=env, check=True, timeout=60)
    assert daemon.containers.list(**of_it) == []
    daemon.close()


MISTAKES = [
    (["--keystore-driver=magic"], "invalid choice: 'magic'"),
    (["--keystore-binary=/nowhere/bao"], "no program '/nowhere/bao'"),
    (["--keystore-binary=/bin/true"], "does not tell a version"),
    (["KEYSTORE_BINARY=/nowhere/vault"], "no program '/nowhere/vault'"),
    (["--keystore-driver=existing"], "needs --keystore-url, --keystore-ca and a token"),
    (["--keystore-network=on"], "run `keystore-harness obtain toxiproxy`"),
    (["--keystore-driver=container"], "no Docker daemon answers"),
]


@pytest.mark.parametrize(("options", "says"), MISTAKES, ids=[options[0] for options, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(tmp_path, options, says):
    (tmp_path / "test_it.py").write_text("def test_it(vault_server):\n    assert vault_server.active\n")
    environment = dict(option.split("=") for option in options if not option.startswith("-"))
    options = [option for option in options if option.startswith("-")]
    done = run_pytest(tmp_path, *options, DOCKER_HOST="unix:///nowhere.sock", **environment)
    assert done.returncode == 4, done.stdout + done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_port_in_use_is_one_clear_line(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import socket\n"
        "def test_it(make_vault_server):\n"
        "    with socket.create_server(('127.0.0.1', 0)) as taken:\n"
        "        make_vault_server(port=taken.getsockname()[1])\n"
    )
    done = run_pytest(tmp_path)
    assert re.search(
        r"HarnessError: vault-x.example.com does not start .*: 127.0.0.1:\d+ is in use; stop what", done.stdout
    )


def test_what_a_driver_cannot_do_is_skipped_with_a_reason(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(vault_server):\n    vault_server.network.latency(1)\n")
    done = run_pytest(tmp_path, "-rs", "--keystore-network=off")
    assert done.returncode == 0
    assert "vault.example.com has no Toxiproxy before it" in done.stdout


def test_markers_choose_driver_and_version(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.keystore_driver('container')\ndef test_driver(): pass\n"
        "@pytest.mark.keystore_version('>=99')\ndef test_version(): pass\n"
        "@pytest.mark.keystore_version('>=1')\ndef test_right(): pass\n"
    )
    assert "1 passed, 2 skipped" in run_pytest(tmp_path).stdout


def test_workers_side_by_side_do_not_meet(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_it(vault_server, n):\n"
        "    with vault_server.killed(): pass\n    assert vault_server.active\n"
    )
    done = run_pytest(tmp_path, "-n2")
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert leftovers(tmp_path) == []


def test_every_other_fixture_gives_what_the_page_says(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import smtplib, urllib.request\n"
        "def test_service(keystore_testbed):\n"
        "    with urllib.request.urlopen(keystore_testbed.service.url + '/readyz') as answer:\n"
        "        assert answer.status == 200\n"
        "    assert all(vault.active for vault in keystore_testbed.vaults.values())\n"
        "def test_cluster(vault_cluster):\n"
        "    with vault_cluster.killed():\n        assert vault_cluster.find_leader() is None\n"
        "    assert len(vault_cluster.voters()) == 3\n"
        "def test_mailbox(mailbox):\n"
        "    with smtplib.SMTP('127.0.0.1', mailbox.port) as smtp:\n"
        "        smtp.sendmail('a@example.com', 'b@example.com', 'Subject: hello\\n\\nhello')\n"
        "    assert mailbox.subjects == ['hello']\n"
        "def test_rest(make_vault_server, keystore_ca, keystore_timeline):\n"
        "    server = make_vault_server()\n    assert server.ca is keystore_ca\n"
        "    server.kill()\n    server.restart()\n"
        "    assert [fault.what for fault in keystore_timeline.faults][-1] == 'killed'\n"
    )
    # In a short folder: a database has a socket in there, whose path may not be longer than some hundred characters.
    done = run_pytest(tmp_path, TMPDIR="/tmp")
    assert "4 passed" in done.stdout, done.stdout + done.stderr
