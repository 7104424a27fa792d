import pytest

from tests.torture.stage import stage


@pytest.fixture(scope="module")
def scene():
    """One organization, and moments at which tests can step in."""
    with stage(intercepted=False, failpoints=True) as made:
        yield made
