"""What a preview costs: `python -m bench.preview` writes the figures of docs/performance.md.

A no-change `pulumi preview` of many keystores beside one of as many trivial dynamic resources with the same inputs,
which is what the engine and the SDK cost by themselves. Both in turns, in one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from keystore_harness import Testbed
from keystore_harness.engine import PulumiStack

from docs.sections import replaced
from pulumi_keystore.client import Client

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- bench.preview -->\n", "<!-- end of bench.preview -->"
PASSWORD = "bench"  # noqa: S105 - of certificates that are made here
PROJECT = """\
name: {name}
runtime:
  name: python
  options:
    toolchain: pip
    virtualenv: .venv
"""
KEYSTORES = """\
import json
from pathlib import Path

from pulumi_keystore import Keystore

for name, props in json.loads(Path("props.json").read_text()).items():
    Keystore(name, **props)
"""
TRIVIAL = """\
import json
from pathlib import Path

import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider


class Provider(ResourceProvider):
    def create(self, props):
        return CreateResult("id", props)


class Trivial(Resource):
    def __init__(self, name, props):
        secrets = {key: pulumi.Output.secret(props[key]) for key in ("certificate", "certificate_password")}
        super().__init__(Provider(), name, props | secrets)


for name, props in json.loads(Path("props.json").read_text()).items():
    Trivial(name, props)
"""


def project(folder: Path, name: str, program: str, props: str) -> Path:
    """Write a Pulumi program; return its folder."""
    made = folder / name
    made.mkdir()
    (made / "Pulumi.yaml").write_text(PROJECT.format(name=name))
    (made / ".venv").symlink_to(ROOT / ".venv")
    (made / "__main__.py").write_text(program)
    (made / "props.json").write_text(props)
    return made


def measure(engine: Path, count: int, rounds: int) -> str:
    """Return the figures, in words."""
    with tempfile.TemporaryDirectory() as temporary, Testbed("a") as testbed:
        token = testbed.service.make_token("ops", "provider-admin")
        admin = Client(testbed.service.url, token)
        environment = {"KEYSTORE_URL": testbed.service.url, "KEYSTORE_TOKEN": token}
        keystores = {}
        for name in (f"org-{number}" for number in range(count)):
            testbed.admit("a", name)
            admin.put_organization(name)
            keystores[name] = {"organization": name, **testbed.declaration("a", name, PASSWORD)}
        folder, props = Path(temporary), json.dumps(keystores)
        with (
            PulumiStack(
                engine, project(folder, "keystores", KEYSTORES, props), folder / "state-1", environment
            ) as ours,
            PulumiStack(engine, project(folder, "trivial", TRIVIAL, props), folder / "state-2", environment) as trivial,
        ):
            seconds: dict[PulumiStack, list[float]] = {ours: [], trivial: []}
            for stack in seconds:
                stack.run("up", "--yes", "--skip-preview", timeout_s=600)
            for _ in range(rounds):
                for stack, taken in seconds.items():
                    begun = time.monotonic()
                    output = stack.run("preview").stdout
                    taken.append(time.monotonic() - begun)
                    assert f"{count + 1} unchanged" in output, output  # noqa: S101 - else the figure means nothing
        medians = {stack: statistics.median(taken) for stack, taken in seconds.items()}
    return (
        f"A `pulumi preview` in which nothing changes, of {count} keystores: **{medians[ours]:.1f} s**; of {count} "
        f"trivial dynamic resources with the same inputs: {medians[trivial]:.1f} s. Ratio "
        f"**{medians[ours] / medians[trivial]:.2f}** (medians of {rounds}, in turns)."
    )


def main() -> int:
    """Measure, print, and write the page with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--engine", type=Path, required=True, help="folder with the pulumi binary")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the figures into docs/performance.md")
    options = parser.parse_args()
    text = measure(options.engine, options.count, options.rounds)
    print(text)
    if options.write:
        PAGE.write_text(replaced(PAGE.read_text(), BEGIN, text + "\n", END))
    return 0


if __name__ == "__main__":
    sys.exit(main())
