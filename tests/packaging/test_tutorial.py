"""The tutorial, word for word, in an empty folder with nothing but what it says that one needs."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from keystore_harness.binary import find_vault

from tests.conftest import ROOT, WHOLE

PORTS = (8200, 8201, 8300, 8301, 8700)
# Where packages come from, and the CA of a proxy on the way there, are matters of the machine.
ABOUT_THE_MACHINE = re.compile(r"PIP_|.*_PROXY$|SSL_CERT_|REQUESTS_CA_BUNDLE$", re.IGNORECASE)


PAGE = (ROOT / "docs" / "tutorial.md").read_text()
MIGRATED = "pulumi config set active second\npulumi up --yes\n"


def commands():
    """Every command of the page, in one script that ends at the first that fails, and says how long it took to migrate.

    That is from a clone to the first migrated key.
    """
    script = "\n".join(["set -euo pipefail", *re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)])
    assert script.count(MIGRATED) == 1
    return script.replace(MIGRATED, f'{MIGRATED}echo "migrated after $SECONDS s"\n')


def packages():
    """The packages of Debian that the page names."""
    [named] = re.findall(r"^apt-get install --yes (.*)$", PAGE, re.MULTILINE)
    return named.split()


def checkout(folder):
    """What is in the repository, and nothing that was made of it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target, follow_symlinks=False)


@pytest.fixture
def home():
    """An empty folder, whose name is as short as people's are: a database socket has to fit into it."""
    with tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.timeout(900)
def test_the_tutorial_leads_from_nothing_to_a_migrated_key(engine, home, capsys):
    checkout(home / "pulumi-keystore")
    tools = home / "tools"
    tools.mkdir()
    needed = {tool.name: tool for tool in engine.glob("pulumi*")}
    needed |= {"bao": Path(find_vault()), "python3": Path(sys.base_prefix) / "bin" / "python3"}
    for name, path in needed.items():
        (tools / name).symlink_to(path)
    environment = {name: value for name, value in os.environ.items() if ABOUT_THE_MACHINE.match(name)}
    environment |= {"HOME": str(home), "PATH": f"{tools}:/usr/bin:/bin", "LANG": "C.UTF-8"}
    environment |= {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    log = home / "log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", commands()],
            cwd=home, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            status = shell.wait(800)
        finally:
            # Whatever it has left running, if it came to no end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGTERM)
    assert status == 0, log.read_text()[-6000:]
    judge(log.read_text(), capsys)
    assert not (home / "keystores").exists()


def judge(said, capsys):
    """Check that a log shows everything that the page promises; print how long the way to the first key took."""
    seconds = int(re.search(r"^migrated after (\d+) s$", said, re.MULTILINE)[1])
    with capsys.disabled():
        print(f"from clone to first migrated key: {seconds} s")
    assert '{"enrolled":1,"restored":0,"given":1}' in said
    assert re.search(r"^second: 1 archive key in the ledger\n0 missing\n0 damaged\n0 surplus$", said, re.MULTILINE)
    assert re.search(r"^active keystore\s+second \(self-administered\)$", said, re.MULTILINE)
    assert re.search(r"^checkpoints/\nmfsgcqdbmnwwkltfpbqw24dmmuxgg33n\.1$", said, re.MULTILINE)
    assert "keystore: warning" not in said


@pytest.mark.skipif(not WHOLE, reason="takes three minutes: run it by `make torture`")
@pytest.mark.timeout(1800)
def test_the_tutorial_in_a_system_that_has_nothing_but_what_it_says(engine, home, capsys):
    """Debian's smallest, as somebody who is not root."""
    if os.geteuid() or not shutil.which("debootstrap"):
        pytest.skip("needs root and debootstrap")
    root = home / "root"
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages())}", "bookworm", str(root)]
    subprocess.run(command, check=True, timeout=900, capture_output=True)
    for tool in (*engine.glob("pulumi*"), Path(find_vault())):
        shutil.copy(tool, root / "usr/local/bin", follow_symlinks=True)
        (root / "usr/local/bin" / tool.name).chmod(0o755)
    # Who is trusted on the way to the packages, and where names are looked up, are matters of the machine.
    for name in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copy(Path("/", name), root / name)
    subprocess.run(["chroot", root, "useradd", "--create-home", "jane"], check=True)
    checkout(root / "home/jane/pulumi-keystore")
    (root / "home/jane/tutorial").write_text(commands())
    subprocess.run(["chroot", root, "chown", "-R", "jane:", "/home/jane"], check=True)
    environment = {name: value for name, value in os.environ.items() if ABOUT_THE_MACHINE.match(name)}
    environment |= {
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin",
        "LANG": "C.UTF-8",
    }
    within = f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && exec chroot {root} su jane -c"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", f"{within} 'cd; bash tutorial' 2>&1"],
        env={**environment, "HOME": "/root"}, check=False, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    judge(done.stdout, capsys)
