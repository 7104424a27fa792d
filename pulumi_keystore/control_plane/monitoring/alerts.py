"""When administrators are told that their keystore is offline, and that it is back (contract: Alerts).

The state machine is a pure function of what came before and of the next test, and its time is tests, a minute apart.
A minute in which the service made no test says nothing about the keystore, so it does not count: neither a clock that
jumps, nor a service that was away, makes a mail early, lost or doubled.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from pulumi_keystore.declarations.monitor import Timings


class Alert(StrEnum):
    """What administrators are told."""

    FAILURE = "failure"
    RESUMED = "resumed"


@dataclass(frozen=True, slots=True)
class State:
    """Where a keystore is between its incidents; every number but the first is minutes.

    Attributes:
        incident: How many incidents have begun, the open one included.
        failing: Since the first failed test of the open incident; None if none is open.
        told: Since the last mail about it; None if none was due.
        online: Since the first good test after the last failed one; None if the last one failed.
        mails: How many mails about the open incident were due.

    """

    incident: int = 0
    failing: int | None = None
    told: int | None = None
    online: int | None = None
    mails: int = 0

    def to_document(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any] | None) -> State:
        """Return the state that a JSON object holds; the first one for None."""
        return cls(**document) if document else cls()


CALM: Final = State()
_USUAL: Final = Timings()


def advance(state: State, online: bool, timings: Timings = _USUAL, passed: int = 1) -> tuple[State, Alert | None]:
    """Return what follows from one more test, and whom it makes us tell.

    `passed` is 1 for a test that is a minute after the one before, or more, and 0 for one that came sooner, as after
    one that was late.

    An incident that nobody was told about ends with the first good test. One that was told about ends when the
    keystore has been online for `timings.online`; until then a failed test belongs to it.
    """
    if state.failing is None:
        return (state, None) if online else _failed(State(state.incident + 1), 0, timings)
    if state.told is None:
        return (State(state.incident), None) if online else _failed(state, state.failing + passed, timings)
    failing, told = state.failing + passed, state.told + passed
    return _back(state, failing, told, timings, passed) if online else _still_failing(state, failing, told, timings)


def _failed(state: State, failing: int, timings: Timings) -> tuple[State, Alert | None]:
    """Nobody was told yet."""
    if failing < timings.offline:
        return replace(state, failing=failing), None
    return replace(state, failing=failing, told=0, mails=1), Alert.FAILURE


def _back(state: State, failing: int, told: int, timings: Timings, passed: int) -> tuple[State, Alert | None]:
    """Administrators know, and are told when it has lasted."""
    good = 0 if state.online is None else state.online + passed
    if good >= timings.online:
        return State(state.incident), Alert.RESUMED
    return State(state.incident, failing, told, good, state.mails), None


def _still_failing(state: State, failing: int, told: int, timings: Timings) -> tuple[State, Alert | None]:
    """Administrators know, and are told again now and then."""
    if told < timings.repeat:
        return State(state.incident, failing, told, None, state.mails), None
    return State(state.incident, failing, 0, None, state.mails + 1), Alert.FAILURE
