"""Background work goes on whatever one turn of it does."""

import threading
import time

import pytest
from keystore_harness import wait_until
from sqlalchemy.exc import OperationalError

from pulumi_keystore.control_plane.runtime import background
from pulumi_keystore.control_plane.runtime.background import Work
from pulumi_keystore.control_plane.runtime.leadership import Superseded
from pulumi_keystore.errors import KeystoreError


@pytest.fixture(autouse=True)
def ending(monkeypatch):
    """What begins here ends with its test."""
    event, before = threading.Event(), set(threading.enumerate())
    monkeypatch.setattr(background, "_ending", event)
    yield event
    event.set()
    # One that is busy now would look at the event of the program afterwards, and go on beside all other tests.
    for thread in set(threading.enumerate()) - before:
        thread.join(60)


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


def test_work_that_fails_each_time_falls_behind():
    """Its moment is the gauge by which somebody is told (`keystore_background_work_timestamp_seconds`)."""
    tries, often, well = [], threading.Event(), threading.Event()

    def fails():
        tries.append(1)
        if len(tries) == 5:
            often.set()
        raise ZeroDivisionError

    background.start([Work("fails", 0.01, fails), Work("works", 0.01, well.set)])
    begun = dict(background.turns)
    assert often.wait(60)
    assert well.wait(60)
    wait_until(lambda: background.turns["works"] > begun["works"], "a turn to be noted", 60, 0.01)
    assert background.turns["fails"] == begun["fails"]


def test_a_mistake_with_one_item_ends_with_it_but_not_that_another_service_leads():
    done = []
    for item in range(3):
        with background.isolated("item", number=item):
            done.append(10 // (item - 1))
    assert done == [-10, 10]
    with pytest.raises(Superseded), background.isolated("item"):
        raise Superseded


@pytest.fixture
def turns():
    made = background.Turns("test", 2)
    yield made
    made._several.shutdown()


def test_nobody_waits_for_an_owner_that_is_busy_and_it_has_one_turn_at_a_time(turns):
    slow, done = threading.Event(), []

    def do(item):
        if item == "a slow one":
            assert slow.wait(30)
        done.append(item)

    turns.take([("a", "a slow one"), ("a", "a later one"), ("b", "b1")], do)
    assert done == ["b1"]
    for number in range(3):
        turns.take([("a", "a again"), ("b", f"b{number + 2}")], do)
    assert done == ["b1", "b2", "b3", "b4"]
    slow.set()
    wait_until(lambda: "a slow one" in done, "the slow one", 60, 0.01)
    wait_until(lambda: not turns._busy, "its turn to end", 60, 0.01)
    turns.take([("a", "a again")], do)
    assert done[-1] == "a again"


def test_an_owner_whose_item_fails_is_not_busy_for_ever(turns):
    tries = []

    def fails(_item):
        tries.append(1)
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            turns.take([("a", 1)], fails)
        wait_until(lambda: not turns._busy, "the turn to end", 60, 0.01)
    assert len(tries) == 3


def test_each_owner_has_its_items_done_in_order_and_those_of_others_beside(turns, monkeypatch):
    monkeypatch.setattr(background, "TURN_S", 60)
    order = []

    def do(item):
        order.append(item)
        return item

    items = [(owner, f"{owner}{number}") for number in range(50) for owner in "abc"]
    assert sorted(turns.take(items, do)) == sorted(order) == sorted(item for _, item in items)
    for owner in "abc":
        mine = [item for item in order if item.startswith(owner)]
        assert mine == [f"{owner}{number}" for number in range(50)]


def test_an_owner_of_many_items_holds_a_round_up_for_one_of_them(monkeypatch):
    monkeypatch.setattr(background, "TURN_S", 0.01)
    one_place, done = background.Turns("test", 1), []

    def do(item):
        time.sleep(0.02)
        done.append(item)

    one_place.take([*(("many", number) for number in range(100)), ("other", 100)], do)
    wait_until(lambda: not one_place._busy, "both turns to end", 60, 0.01)
    assert done == [0, 100]


def test_work_that_fails_each_time_falls_behind_and_other_work_does_not(monkeypatch):
    monkeypatch.setattr(background, "turns", {})
    done = threading.Event()
    background.start([Work("fails", 0.5, lambda: 1 / 0), Work("works", 0.5, done.set)])
    begun = dict(background.turns)
    assert done.wait(60)
    wait_until(lambda: background.turns["works"] > begun["works"], "a turn")
    assert background.turns["fails"] == begun["fails"]


def test_a_process_that_is_told_to_stop_is_not_ended_for_the_database_that_stops_with_it(monkeypatch):
    ended = []
    monkeypatch.setattr(background.os, "_exit", ended.append)
    background.stop_unless(leads=False, otherwise="is lost")
    background.end()
    background.stop_unless(leads=False, otherwise="is lost")
    assert ended == [background.SUPERSEDED_STATUS]
