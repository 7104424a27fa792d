"""When administrators are told: a table of cases, and a year of random histories beside a plain reference model."""

import random
from datetime import UTC, datetime, timedelta
from itertools import groupby

import pytest

from pulumi_keystore.control_plane.monitoring.alerts import CALM, Alert, State, advance
from pulumi_keystore.control_plane.monitoring.results import _passed
from pulumi_keystore.control_plane.monitoring.timeline import Minutes, is_due
from pulumi_keystore.declarations.monitor import Timings
from tests.conftest import effort

DAY = 24 * 60


def told(tests):
    """Return at which test of a row of tests somebody is told what."""
    state, found = CALM, []
    for number, online in enumerate(tests):
        state, alert = advance(state, online)
        if alert:
            found.append((number, alert))
    return found


UP, DOWN = [True], [False]
F, R = Alert.FAILURE, Alert.RESUMED


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (UP * 10, []),
        (DOWN * 5, []),  # down for 4 minutes and a bit
        (DOWN * 6, [(5, F)]),
        (UP * 3 + DOWN * 6, [(8, F)]),
        (DOWN * 5 + UP + DOWN * 5, []),  # never 5 minutes in one go
        (DOWN * 5 + UP * 20, []),  # nobody was told, so nobody is told that it is over
        (DOWN * 6 + UP * 5, [(5, F)]),  # up for 4 minutes and a bit
        (DOWN * 6 + UP * 6, [(5, F), (11, R)]),
        (DOWN * 6 + UP * 5 + DOWN + UP * 5, [(5, F)]),  # the same incident
        (DOWN * 6 + UP * 5 + DOWN + UP * 6, [(5, F), (17, R)]),
        (DOWN * 6 + UP * 6 + DOWN * 6, [(5, F), (11, R), (17, F)]),
        (DOWN * (5 + DAY), [(5, F)]),  # 23:59 after the first mail
        (DOWN * (6 + DAY), [(5, F), (5 + DAY, F)]),
        (DOWN * (6 + 2 * DAY), [(5, F), (5 + DAY, F), (5 + 2 * DAY, F)]),
        # The reminder was due in a moment in which the keystore was up: it comes with the next failure.
        (DOWN * (3 + DAY) + UP * 4 + DOWN * 2, [(5, F), (7 + DAY, F)]),
        ((DOWN + UP) * (DAY // 2), []),  # it flaps each minute for a day: no mail; its reliability shows it
        (DOWN * 6 + (UP + DOWN) * (DAY // 2), [(5, F), (5 + DAY, F)]),  # it flaps after a mail: one a day
    ],
)
def test_who_is_told_when(tests, expected):
    assert told(tests) == expected


def test_timings_can_be_chosen():
    timings, state, found = Timings(1, 60, 2), CALM, []
    for number, online in enumerate(DOWN * 70 + UP * 5):
        state, alert = advance(state, online, timings)
        found += [(number, alert)] if alert else []
    assert found == [(1, F), (61, F), (72, R)]


def test_a_state_survives_the_database():
    state = State(3, 17, 12, 2, 1)
    assert State.from_document(state.to_document()) == state
    assert State.from_document(None) == CALM


# A simulated year: outages, restarts of the service, jumps of the clock.

TURN, TEN_MINUTES = timedelta(seconds=20), timedelta(minutes=10)


class Clock:
    """The service's clock, which jumps, and the true time, which does not."""

    def __init__(self):
        self.true = datetime(2026, 1, 1, tzinfo=UTC)
        self.off = timedelta()

    @property
    def now(self):
        return self.true + self.off


def reference(tests):
    """Return the alerts of a row of (minutes observed, online), in words of runs instead of a state machine.

    The first failing run in which a test comes 5 minutes after its first one starts an incident, which ends with the
    first online run of that length. Within an incident a failing test that comes a day after the last mail brings
    another one.
    """
    alerts, last_mail = [], None
    for online, group in groupby(enumerate(tests), key=lambda entry: entry[1][1]):
        run = [(number, minute) for number, (minute, _) in group]
        for number, minute in run:
            lasted = minute - run[0][1] >= 5
            due = lasted if last_mail is None else minute - last_mail >= DAY
            if not online and due:
                alerts.append((number, F))
                last_mail = minute
            elif online and lasted and last_mail is not None:
                alerts.append((number, R))
                last_mail = None
    return alerts


def outages_of_a_year(chance, begin):
    """Return when a keystore is offline, as pairs of moments in order; now and then it flaps for a while."""
    found, moment = [], begin
    while moment < begin + timedelta(days=365):
        moment += timedelta(minutes=chance.expovariate(1 / 9000) + 1)
        length = timedelta(minutes=chance.choice([1, 3, 5, 6, 10, 60, 500, 1441, 3000]) * chance.uniform(0.5, 1.5))
        found.append((moment, moment + length))
        moment += length
        for _ in range(chance.randrange(20) if chance.random() < 0.3 else 0):
            moment += timedelta(minutes=chance.randrange(1, 7))
            found.append((moment, moment + timedelta(minutes=1)))
            moment += timedelta(minutes=1)
    return found


def befall(what, chance, clock):
    """Let something happen to the service; return whether it was its clock."""
    if what == "restart":
        clock.true += timedelta(seconds=chance.uniform(0, 200))
    elif what == "suspended":
        clock.true += timedelta(hours=chance.uniform(0, 10))
    else:
        clock.off += timedelta(hours=chance.choice([-1, 25, 1, -24, -0.01, 0.01]))
    return what == "clock"


def a_year(seed):
    """Return the row of tests that a service makes in a year, when each is made, what it tells, and clock jumps."""
    chance, clock = random.Random(seed), Clock()
    minutes = Minutes(chance.random())
    end = clock.true + timedelta(days=365)
    outages = outages_of_a_year(chance, clock.true)
    # What happens to the service: away for a while, or its clock is set.
    events = sorted(
        (clock.true + timedelta(minutes=chance.uniform(0, 365 * DAY)), chance.choice(["restart", "suspended", "clock"]))
        for _ in range(300)
    )
    # Something is always ahead: a year is a million and a half of these turns.
    outages.append((end, datetime.max.replace(tzinfo=UTC)))
    events.append((datetime.max.replace(tzinfo=UTC), "nothing"))
    tests, times, alerts, jumps, state, last, tested = [], [], [], [], CALM, None, None
    position = 0
    while clock.true < end:
        while events[0][0] <= clock.true:
            if befall(events.pop(0)[1], chance, clock):
                jumps.append(clock.true)
            # Everything in memory is lost; the database has the state.
            state = State.from_document(state.to_document())
        true, now = clock.true, clock.now
        while outages[position][1] <= true:
            position += 1
        down = outages[position][0] <= true
        minute = minutes.at(now)
        if is_due(minute, last):
            last = minute
            passed = _passed(tested, now, 60)
            tested = now
            tests.append((tests[-1][0] + passed if tests else 0, not down))
            times.append(true)
            state, alert = advance(state, not down, passed=passed)
            if alert:
                alerts.append((len(tests) - 1, alert))
        if not down and state.failing is None:
            ahead = min(outages[position][0], events[0][0]) - true
            if ahead > TEN_MINUTES:
                # Nothing happens for long: such tests are all alike.
                skipped = int(ahead.total_seconds() // 60) - 5
                clock.true += timedelta(minutes=skipped)
                tests.append((tests[-1][0] + skipped if tests else skipped, True))
                times.append(clock.true)
                last, tested = minutes.at(clock.now), clock.now
        clock.true += TURN
    return tests, times, alerts, jumps


@pytest.mark.parametrize("decade", range(effort(1, 2, 10)))
def test_random_years_of_outages_restarts_and_clock_jumps(decade):
    mails = 0
    for seed in range(decade * 10, decade * 10 + effort(3, 10, 10)):
        tests, times, alerts, jumps = a_year(seed)
        assert alerts == reference(tests), f"seed {seed}"
        previous = None
        for number, alert in alerts:
            # In true time, too, but for clock jumps, each of which brings one test forward; and a test is seldom quite a
            # minute after the one before.
            again = previous is not None and previous[1] is alert
            begun = previous[0] if again else number
            while not again and begun > 0 and tests[begun - 1][1] is tests[number][1]:
                begun -= 1
            jumped = sum(times[begun] <= jump <= times[number] for jump in jumps)
            least = timedelta(minutes=(DAY if again else 5) - jumped, seconds=-30)
            assert times[number] - times[begun] >= least, f"seed {seed}"
            previous = (number, alert)
        mails += len(alerts)
    assert mails > 100, "nothing happened, so nothing is shown"
