from collections.abc import Iterator

import pytest
from keystore_harness import Testbed

from tests.safety.bed import SETTINGS, Bed


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """Servers a, b and c and a service of the module's own: their database, names and snapshots are meddled with."""
    with Testbed("abc", SETTINGS, lines=True) as testbed:
        made = Bed(testbed)
        yield made
        made.close()
