"""Who is lost, and what has stalled, is told by one monotonic clock and by what was seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.control_plane.migration.endings import Ending, MigrationFailed
from pulumi_keystore.control_plane.migration.supervisor import LeaseWatch, StallWatch


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_it_has_stalled_when_no_more_keys_moved_for_the_window():
    clock = Clock()
    watch = StallWatch(300, clock)
    for keys in range(10):
        clock.now += 299
        watch.observe(keys)
    clock.now += 300
    watch.observe(9)
    clock.now += 1
    with pytest.raises(MigrationFailed) as caught:
        watch.observe(9)
    assert caught.value.ending is Ending.STALLED
    assert caught.value.detail == "no archive key moved for 300 s"


def test_work_that_is_lost_and_done_again_is_no_progress():
    clock = Clock()
    watch = StallWatch(10, clock)
    for keys in (50, 0, 40, 0, 49):
        watch.observe(keys)
        clock.now += 2.1
    with pytest.raises(MigrationFailed):
        watch.observe(50)


def test_slow_but_moving_is_not_stalled():
    clock = Clock()
    watch = StallWatch(10, clock)
    for keys in range(1000):
        watch.observe(keys)
        clock.now += 9.9


def test_a_holder_is_lost_when_it_has_shown_no_sign_for_the_lease():
    clock = Clock()
    watch = LeaseWatch(15, clock)
    assert watch.lost([(1, "a", 0), (2, "b", 0)]) == set()
    clock.now = 14
    assert watch.lost([(1, "a", 1), (2, "b", 0)]) == set()
    clock.now = 16
    assert watch.lost([(1, "a", 1), (2, "b", 0)]) == {"b"}
    clock.now = 30
    assert watch.lost([(1, "a", 1), (2, "c", 0)]) == {"a"}  # b's shard has another holder, who has just begun


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=50))
def test_who_beats_often_enough_is_never_lost_and_who_stopped_always_is(steps):
    clock = Clock()
    watch = LeaseWatch(5.5, clock)
    heartbeats = 0
    for seconds, also in steps:
        clock.now += seconds
        heartbeats += 1
        held = [(1, "alive", heartbeats)] + ([(2, "sometimes", 0)] if also else [])
        assert "alive" not in watch.lost(held)
    watch.lost([(1, "alive", heartbeats)])
    clock.now += 5.6
    assert watch.lost([(1, "alive", heartbeats)]) == {"alive"}
