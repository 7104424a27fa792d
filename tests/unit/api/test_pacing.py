"""What an organization may use of the processor while others want it, and for how long it pays for more."""

import threading
import time
from contextvars import copy_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.control_plane.api import pacing
from pulumi_keystore.control_plane.api.pacing import Company, Meter, Pace
from pulumi_keystore.vault import transport

SHARE = 0.25
COSTS = st.lists(st.tuples(st.floats(0, 5), st.floats(0.001, 1.0)), min_size=1, max_size=60)


@given(COSTS)
def test_one_after_the_other_uses_no_more_than_its_share_and_a_burst(steps):
    """Each request begins when the one before is paid for, at the earliest."""
    pace, now, spent = Pace(SHARE), 1000.0, 0.0
    for pause_s, cost_s in steps:
        now += pause_s
        now = pace.pay(now, cost_s)
        spent += cost_s
    # What is not held against it for longer is a minute of its share at a time; no single cost is as much.
    assert spent <= SHARE * (now - 1000.0) + pacing._BURST_S + 1e-6


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=20))
def test_whatever_it_has_cost_it_is_paid_for_after_a_while(costs):
    pace = Pace(SHARE)
    for cost_s in costs:
        assert pace.pay(50.0, cost_s) <= 50.0 + pacing._LONGEST_S
    later = pace.forgotten_at()
    assert later <= 50.0 + pacing._LONGEST_S + pacing._BURST_S / SHARE
    # And then it is as new.
    assert pace.pay(later, pacing._BURST_S) == pytest.approx(later)


@given(COSTS)
def test_who_is_alone_owes_nothing_and_has_nothing_to_spend_at_once(steps):
    pace, now = Pace(SHARE), 1000.0
    for pause_s, cost_s in steps:
        now += pause_s
        assert pace.pay(now, cost_s, alone=True) == now
    pace.pay(now, 10.0, alone=True)
    assert pace.pay(now, 1.0) == pytest.approx(now + 1.0 / SHARE)


def test_little_is_never_waited_for():
    pace, now = Pace(SHARE), 0.0
    for _ in range(1000):
        now += 0.1
        assert pace.pay(now, 0.1 * SHARE) == now


def burn(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_the_work_of_other_threads_in_the_same_request_is_counted_and_no_other():
    mine, other = Meter(), Meter()

    def work(meter):
        meter.attach()
        context = copy_context()
        route = pacing.counted(burn)
        thread = threading.Thread(target=context.run, args=(route, 0.05 if meter is mine else 0.2))
        thread.start()
        list(pacing.metered(str(number) for number in range(3)))
        thread.join()

    for meter in (mine, other):
        copy_context().run(work, meter)
    assert 0.05 <= mine.owed_s < 0.15
    assert other.owed_s >= 0.2


def test_pieces_of_an_answer_are_passed_on_as_they_are():
    assert list(pacing.metered(iter(["a", "", "b"]))) == ["a", "", "b"]


def test_who_is_alone_is_alone_and_who_is_not_is_not():
    company = Company()
    company.enter("a", 0.0)
    company.enter("a", 5.0)
    assert not company.has("a", 5.0)
    assert company.has("b", 5.0)
    company.enter("b", 6.0)
    company.enter("a", 7.0)
    company.enter("a", 12.0)
    assert company.has("a", 12.0)
    assert not company.has("a", 17.0)
    assert company.has("b", 17.0)


def test_a_request_that_goes_on_is_charged_while_it_does_and_rests():
    paid = []
    meter = Meter()
    meter.pay = lambda spent_s: paid.append(spent_s) or 0.0

    def work():
        meter.attach()
        with meter.running():
            for _ in range(10):
                burn(0.06)
                transport.rest.get()()
            meter.rest()  # of nothing new
        return meter.owed_s

    left = copy_context().run(work)
    assert len(paid) == 10
    assert min(paid) >= 0.05
    assert left < 0.05


def test_a_thread_that_nobody_counts_may_rest():
    meter = Meter()
    meter.rest()
    assert meter.owed_s == pytest.approx(pacing._EACH_S)
