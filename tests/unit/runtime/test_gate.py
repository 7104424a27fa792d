"""The gate of an organization: many pass at a time, one closes it, and nobody waits for another organization's."""

import threading
from contextlib import ExitStack
from contextvars import copy_context

import pytest

from pulumi_keystore.control_plane.runtime import gate as module
from pulumi_keystore.control_plane.runtime.gate import Gate
from pulumi_keystore.errors import TooManyRequests
from pulumi_keystore.vault import transport

SOON_S = 60


@pytest.fixture
def gate():
    return Gate()


class Actor(threading.Thread):
    """Goes through a gate, and stays in it until it is told to leave."""

    def __init__(self, way):
        super().__init__(daemon=True)
        self.way, self.inside, self.leave = way, threading.Event(), threading.Event()
        self.start()

    def run(self):
        with self.way:
            self.inside.set()
            self.leave.wait(SOON_S)

    def end(self):
        self.leave.set()
        self.join(SOON_S)
        assert not self.is_alive()


def test_many_pass_at_a_time(gate):
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(gate.passing(1))


def test_who_closes_waits_for_those_who_pass_and_comes_before_later_ones(gate):
    first = Actor(gate.passing(1))
    assert first.inside.wait(SOON_S)
    closing = Actor(gate.closed(1))
    while not gate._waiting[1]:
        pass
    later = Actor(gate.passing(1))
    assert not closing.inside.wait(0.05)
    assert not later.inside.is_set()
    first.end()
    assert closing.inside.wait(SOON_S)
    assert not later.inside.wait(0.05)
    closing.end()
    assert later.inside.wait(SOON_S)
    later.end()
    assert not gate._passing
    assert not gate._waiting
    assert not gate._closed


def test_two_who_close_come_one_after_the_other(gate):
    first = Actor(gate.closed(1))
    assert first.inside.wait(SOON_S)
    second = Actor(gate.closed(1))
    assert not second.inside.wait(0.05)
    first.end()
    assert second.inside.wait(SOON_S)
    second.end()


def test_another_organization_has_a_gate_of_its_own(gate):
    with gate.closed(1), gate.passing(2), gate.closed(3):
        pass


def test_what_fails_inside_leaves_the_gate_as_it_was(gate):
    for way in (gate.passing, gate.closed):
        with pytest.raises(ZeroDivisionError), way(1):
            raise ZeroDivisionError
    with gate.closed(1):
        pass


def test_a_gate_that_stays_closed_is_told(gate, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
    with gate.closed(1), pytest.raises(TooManyRequests), gate.passing(1):
        pass
    with gate.passing(1):
        pass


@pytest.mark.parametrize("way", ["passing", "closed"])
def test_nobody_rests_in_a_gate_that_others_wait_for(gate, way):
    def work():
        transport.rest.set(lambda: None)
        with getattr(gate, way)(1):
            inside = transport.rest.get()
        return inside, transport.rest.get()

    inside, outside = copy_context().run(work)
    assert inside is None
    assert outside is not None
