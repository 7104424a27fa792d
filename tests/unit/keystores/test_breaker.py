"""A keystore that fails again and again is asked by one caller every few seconds."""

import pytest

from pulumi_keystore.control_plane.keystores.breaker import Breaker
from pulumi_keystore.errors import Conflict, HostUnavailable, KeystoreFault, UnableToAuthenticate, Unsuitable

BINDING, OTHER, RENEWED = (1, 1), (2, 1), (1, 2)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock)


def fail(breaker, times, error=None):
    for _ in range(times):
        breaker.note(BINDING, error or HostUnavailable("it hangs", hint="unseal it"))


def test_a_few_failures_refuse_nobody(breaker):
    fail(breaker, 4)
    breaker.admit(BINDING)


def test_after_more_of_them_each_caller_is_told_what_it_was(breaker):
    fail(breaker, 4)
    fail(breaker, 1, UnableToAuthenticate("the role is gone", hint="look for it"))
    with pytest.raises(UnableToAuthenticate, match=r"the role is gone; .* 5 times in a row .* in 5 s; look for it$"):
        breaker.admit(BINDING)
    breaker.admit(OTHER)
    breaker.admit(RENEWED)


def test_one_caller_at_a_time_looks_whether_it_works_again(breaker, clock):
    fail(breaker, 5)
    clock.now += 5
    breaker.admit(BINDING)
    for _ in range(3):
        with pytest.raises(HostUnavailable):
            breaker.admit(BINDING)
    fail(breaker, 1)
    with pytest.raises(HostUnavailable):
        breaker.admit(BINDING)
    clock.now += 5
    breaker.admit(BINDING)
    breaker.note(BINDING, None)
    for _ in range(3):
        breaker.admit(BINDING)


def test_a_caller_that_never_says_what_it_found_does_not_close_it_for_ever(breaker, clock):
    fail(breaker, 5)
    for _ in range(3):
        clock.now += 5
        breaker.admit(BINDING)


def test_failures_with_success_between_them_are_not_in_a_row(breaker):
    for _ in range(3):
        fail(breaker, 4)
        breaker.note(BINDING, None)
    breaker.admit(BINDING)


@pytest.mark.parametrize(
    "error", [Conflict("x"), Unsuitable("x"), KeystoreFault("x"), ValueError(), KeyboardInterrupt()]
)
def test_what_is_wrong_with_a_request_says_nothing_about_the_keystore(breaker, error):
    fail(breaker, 9, error)
    breaker.admit(BINDING)


def test_what_nobody_has_asked_for_a_minute_is_forgotten(breaker, clock):
    fail(breaker, 5)
    breaker.forget_old()
    with pytest.raises(HostUnavailable):
        breaker.admit(BINDING)
    clock.now += 66
    breaker.forget_old()
    breaker.admit(BINDING)
    breaker.admit(BINDING)
