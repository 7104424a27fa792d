"""`make demo`, as a newcomer runs it."""

import os
import subprocess
import sys

from tests.conftest import ROOT


def test_the_demo_ends_well(engine):
    environment = {**os.environ, "PULUMI_ENGINE": str(engine)}
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All as it should be" in done.stdout
    assert "keys readable and equal: 1,000" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (ROOT / "Pulumi.demo.yaml").exists()
