"""Background work goes on whatever one turn of it does."""

import threading

import pytest
from sqlalchemy.exc import OperationalError

from pulumi_keystore.control_plane.runtime import background
from pulumi_keystore.control_plane.runtime.background import Work
from pulumi_keystore.control_plane.runtime.leadership import Superseded
from pulumi_keystore.errors import KeystoreError


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), KeystoreError("x"), OperationalError("", {}, Exception()), RecursionError()]
)
def test_a_turn_that_fails_is_not_the_last_one(error):
    turns, again = [], threading.Event()

    def turn():
        turns.append(1)
        if len(turns) == 1:
            raise error
        again.set()

    background.start([Work("test", 0.01, turn)])
    assert again.wait(60)


def test_a_mistake_with_one_item_ends_with_it_but_not_that_another_service_leads():
    done = []
    for item in range(3):
        with background.isolated("item", number=item):
            done.append(10 // (item - 1))
    assert done == [-10, 10]
    with pytest.raises(Superseded), background.isolated("item"):
        raise Superseded
