"""Each bug of `make mutants` still fits the code, or it would catch nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.torture.mutants import BUGS


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_fits_the_code(bug):
    assert (ROOT / "pulumi_keystore" / bug.file).read_text().count(bug.right) == 1
    assert (ROOT / bug.test).exists()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_is_one_of_what_the_code_does(bug):
    """Not that of a name that is not there: any test would notice."""
    text = (ROOT / "pulumi_keystore" / bug.file).read_text().replace(bug.right, bug.wrong)
    ruff = [Path(sys.executable).parent / "ruff", "check", "--quiet", "--no-cache", "--select", "F821,F823", "-"]
    done = subprocess.run(ruff, input=text, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_there_are_enough():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 98
