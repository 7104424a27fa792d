"""Find or obtain the Pulumi engine and print the folder to put on PATH.

The first of these that works is used:

1. `pulumi` on PATH, with its Python language host beside it or on PATH;
2. an engine this script obtained earlier (a folder under the user's cache);
3. Pulumi's own installer, as the Pulumi SDK offers it;
4. a build from the Go module of the engine, pinned in `go.mod` and `go.sum` beside this file, with the small
   language host for Python in `language/` and what runs programs for it, `executor.py` (about five minutes on two
   cores, once).

Everything but the last line goes to standard error; the last line, on standard output, is the folder.
Run it with the project's Python: `.venv/bin/python engine/obtain.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
INSTALL_TIMEOUT_S = 300
OLDEST_USABLE = (3, 200, 0)

RESOURCE_LAUNCHER = """\
#!/bin/sh
# Runs Pulumi's own dynamic provider server in the virtual environment that the project names, relative to the
# program's folder; as Pulumi's launcher of this name does.
venv=${PULUMI_RUNTIME_VIRTUALENV:-}
if [ -z "$venv" ]; then
    case ${PULUMI_RUNTIME_TOOLCHAIN:-} in
        uv) venv=.venv ;;
        poetry) venv=$(poetry env info --path) ;;
        *) exec "${PULUMI_PYTHON_CMD:-python3}" -u -m pulumi.dynamic "$@" ;;
    esac
fi
case $venv in
    /*) ;;
    *) venv=$PWD/$venv ;;
esac
if [ ! -f "$venv/bin/python" ]; then
    echo "the 'virtualenv' option in Pulumi.yaml leads to '$venv', which is no virtual environment" >&2
    exit 1
fi
unset PYTHONHOME
PATH=$venv/bin:$PATH
export PATH
exec "$venv/bin/python" -u -m pulumi.dynamic "$@"
"""


def say(text: str) -> None:
    """Tell the person at the terminal what is going on."""
    print(f"engine: {text}", file=sys.stderr, flush=True)


def pinned_version() -> str:
    """Return the engine version that `go.mod` pins, for example `v3.258.0`."""
    match = re.search(r"pulumi/pkg/v3 (v[0-9.]+)", (HERE / "go.mod").read_text())
    if match is None:
        sys.exit("engine: go.mod pins no version of the Pulumi engine")
    return match.group(1)


def cache_folder() -> Path:
    """Return where obtained engines are kept, outside the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pulumi-keystore" / f"engine-{pinned_version()}"


def version_of(pulumi: Path) -> tuple[int, ...]:
    """Return the version a `pulumi` binary reports, or an empty tuple where it reports none."""
    try:
        answer = subprocess.run([pulumi, "version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else ()


def usable(folder: Path) -> bool:
    """Tell whether a folder holds an engine and the Python language host that this project needs."""
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    beside = all(shutil.which(name, path=path) for name in ("pulumi-language-python", "pulumi-resource-pulumi-python"))
    return beside and version_of(folder / "pulumi") >= OLDEST_USABLE


def on_path() -> Path | None:
    """Return the folder of a usable `pulumi` on PATH."""
    found = shutil.which("pulumi")
    folder = Path(found).resolve().parent if found else None
    return folder if folder and usable(folder) else None


def installed(cache: Path) -> Path | None:
    """Let the Pulumi SDK run the official installer; return the folder, or None where it cannot be reached."""
    code = (
        "import sys; from semver import VersionInfo; from pulumi.automation import PulumiCommand; "
        "PulumiCommand.install(root=sys.argv[1], version=VersionInfo.parse(sys.argv[2]))"
    )
    root = cache / "installed"
    say("trying Pulumi's installer ...")
    with contextlib.suppress(subprocess.SubprocessError):
        subprocess.run(
            [sys.executable, "-c", code, root, pinned_version().lstrip("v")],
            capture_output=True,
            timeout=INSTALL_TIMEOUT_S,
            check=True,
        )
    if usable(root / "bin"):
        return root / "bin"
    shutil.rmtree(root, ignore_errors=True)
    say("Pulumi's installer cannot be reached from here.")
    return None


def built(cache: Path) -> Path:
    """Build the engine from its Go module and put our language host beside it."""
    say(f"building Pulumi {pinned_version()} with Go; this takes some minutes, once ...")
    cache.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="build-", dir=cache))
    try:
        _build("github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", staging / "pulumi")
        put_host(staging)
        # One rename makes the finished engine visible, so that an interrupted build is never used.
        target = cache / "bin"
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return cache / "bin"


def _build(package: str, target: Path) -> None:
    go = shutil.which("go") or next((p for p in ("/usr/local/go/bin/go",) if Path(p).exists()), None)
    if go is None:
        sys.exit(
            "engine: no `pulumi` on PATH, its installer is unreachable, and there is no Go to build it: "
            "install Pulumi (or Go 1.25 or later) and run this again"
        )
    flags = f"-w -s -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={pinned_version()}"
    command = [go, "build", "-mod=readonly", "-trimpath", "-tags", "osusergo grpcnotrace", "-ldflags", flags]
    _run_with_clock([*command, "-o", str(target), package])


def _run_with_clock(command: list[str]) -> None:
    """Run a long command in our folder, with a line each half minute and its output only if it fails."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=HERE, stdout=output, stderr=subprocess.STDOUT)
        while True:
            try:
                code = process.wait(timeout=30)
                break
            except subprocess.TimeoutExpired:
                say(f"still building, {time.monotonic() - started:.0f} s ...")
        if code:
            output.seek(0)
            sys.exit(f"engine: `{' '.join(command[:2])}` failed with status {code}:\n{output.read()[-2000:]}")
    say(f"built in {time.monotonic() - started:.0f} s.")


def host_version() -> str:
    """Return a digest of what our language host is made of."""
    parts = [HERE / "executor.py", HERE / "language" / "main.go", HERE / "go.sum"]
    text = b"\0".join(part.read_bytes() for part in parts) + RESOURCE_LAUNCHER.encode()
    return hashlib.sha256(text).hexdigest()


def put_host(folder: Path) -> None:
    """Put our language host, and what it runs, into the folder of a built engine, unless it is this checkout's."""
    mark = folder / "host.sha256"
    if mark.exists() and mark.read_text() == host_version():
        return
    staging = Path(tempfile.mkdtemp(prefix="host-", dir=folder.parent))
    try:
        _build("./language", staging / "pulumi-language-python")
        for name, text in (
            ("pulumi-resource-pulumi-python", RESOURCE_LAUNCHER),
            ("pulumi-language-python-exec", (HERE / "executor.py").read_text()),
            ("host.sha256", host_version()),
        ):
            (staging / name).write_text(text)
            (staging / name).chmod(0o755)
        # Last the mark. Each file is replaced whole: another checkout may use it now.
        for file in sorted(staging.iterdir(), key=lambda file: file.name == mark.name):
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def main() -> None:
    """Print the folder of a usable engine, obtaining one first where there is none."""
    cache = cache_folder()
    folder = on_path()
    if folder is None:
        folder = next((f for f in (cache / "installed" / "bin", cache / "bin") if usable(f)), None)
    if folder is None:
        folder = installed(cache) or built(cache)
    if folder == cache / "bin":
        put_host(folder)
    say(f"using {folder / 'pulumi'} {'.'.join(map(str, version_of(folder / 'pulumi')))}")
    print(folder)


if __name__ == "__main__":
    main()
