"""Each bug of `make mutants` still fits the code, or it would catch nothing."""

import pytest

from tests.conftest import ROOT
from tests.torture.mutants import BUGS


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_fits_the_code(bug):
    assert (ROOT / "pulumi_keystore" / bug.file).read_text().count(bug.right) == 1
    assert (ROOT / bug.test).exists()


def test_there_are_enough():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20
