from collections.abc import Iterator

import pytest
from keystore_harness import Testbed

from tests.conftest import retire
from tests.safety.bed import SETTINGS, Bed


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Servers a, b and c and a service of the module's own: their database, names and snapshots are meddled with."""
    with Testbed("abc", SETTINGS, lines=True) as testbed:
        made = Bed(testbed)
        yield made
        made.close()


@pytest.fixture(autouse=True)
def retired(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nobody looks at the customers of earlier tests."""
    yield
    if "bed" in request.fixturenames:
        bed = request.getfixturevalue("bed")
        retire(bed.testbed, bed.customers)
