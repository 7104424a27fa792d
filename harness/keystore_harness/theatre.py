"""What outage scenarios are played on: the stage, what is expected on it, and the theatre that plays them in a row."""

from __future__ import annotations

import datetime as dt
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from keystore_harness import drivers
from keystore_harness.binary import find_toxiproxy
from keystore_harness.customer import Customer
from keystore_harness.errors import HarnessError, Unsupported
from keystore_harness.network import Toxiproxy
from keystore_harness.testbed import Testbed
from keystore_harness.timeline import Timeline

SUCCEEDED = "Migration succeeded"
SOURCE = "Migration failed: source not reachable"
DESTINATION = "Migration failed: destination not reachable"
VERIFICATION = "Migration failed: destination data failed verification"
_LOG_LINES = 200
# The service gives up on a server after two seconds here, so that nobody waits for half a minute.
_SETTINGS = {"retry_s": "2", "cleanup_retry_s": "1", "shard_size": "50"}


@dataclass(frozen=True)
class Settings:
    """How scenarios run.

    Attributes:
        driver: `process` or `container`.
        binary: Path of the servers' binary, found by itself by default.
        keys: How many archive keys there are.
        seconds: How long an outage of a given length lasts.

    """

    driver: str = "process"
    binary: str | None = None
    keys: int = 1000
    seconds: float = 10


@dataclass
class Stage:
    """Everything a scenario plays on: vaults, the service, and one customer whose keys lie in `first`."""

    testbed: Testbed
    customer: Customer
    settings: Settings
    say: Callable[[str], None]

    def expect(self, what: str, *, holds: bool) -> None:
        """Record an expectation.

        Raises:
            AssertionError: It does not hold.

        """
        self.testbed.timeline.note("expectation", what, "passed" if holds else "failed")
        self.say(("as expected: " if holds else "NOT AS EXPECTED: ") + what)
        assert holds, f"expected: {what}"  # noqa: S101

    def expect_complete(self, keystore: str) -> None:
        """Expect that a keystore is active and holds every key, and the other one none."""
        try:
            self.customer.check(keystore)
        except AssertionError as error:
            self.expect(str(error), holds=False)
        self.expect(f"{keystore} is active with all {len(self.customer.keys):,} keys, the other is empty", holds=True)

    def expect_ending(self, row: dict[str, object], ending: str) -> None:
        """Expect that a migration ends with a text."""
        found = self.customer.ended(row)["ending"]
        self.expect(f"{ending!r}" + ("" if found == ending else f", not {found!r}"), holds=found == ending)

    def expect_refused(self, what: str, call: Callable[[], object]) -> None:
        """Expect that the service refuses a request."""
        try:
            call()
        except HarnessError as error:
            self.expect(f"{what} is refused ({error})", holds=True)
        else:
            self.expect(f"{what} is refused", holds=False)

    def migrate_during(self, fault: AbstractContextManager[object], share: float, ending: str) -> None:
        """Break something when a share of the keys has moved; expect an ending, and after healing all keys."""
        row = self.customer.start_migration()
        self.customer.wait_for_share(row, share)
        with fault:
            self.expect_ending(row, ending)
        self.customer.wait_for_clean_up(row)
        self.expect_complete("second" if ending == SUCCEEDED else "first")
        if ending != SUCCEEDED:
            self.expect_ending(self.customer.start_migration(), SUCCEEDED)
            self.expect_complete("second")


@dataclass(frozen=True)
class Ground:
    """What scenarios can share: servers and a service, on which each has an organization of its own."""

    cluster: bool = False
    disk_mb: int | None = None
    lines: bool = False
    network: bool = False

    @property
    def needs(self) -> str:
        """What the machine has to have, in words; empty where that is nothing in particular."""
        return ", ".join(["Toxiproxy"] * self.network + ["root"] * (self.disk_mb is not None))


@dataclass(frozen=True)
class Scenario:
    """A scenario; see `scenario` for its parts."""

    name: str
    fault: str
    expectation: str
    play: Callable[[Stage], None] = field(repr=False)
    ground: Ground
    spoils: bool = False


@dataclass
class Result:
    """How a scenario ended: `passed`, `failed`, `skipped` or `error`."""

    scenario: Scenario
    outcome: str
    message: str
    seconds: float
    timeline: Timeline
    started: dt.datetime
    logs: dict[str, str] = field(default_factory=dict)
    """The end of what the service and each server wrote, where it did not go as expected."""
    files: dict[str, Path] = field(default_factory=dict)
    """The whole of it, where that is kept."""


class Theatre:
    """Plays scenarios, one after another, on the same ground as long as that is sound. Use it as a context manager.

    Args:
        settings: How they run.
        logs: The folder in which the logs of each scenario are kept, by default nowhere.

    """

    def __init__(self, settings: Settings, logs: Path | None = None) -> None:
        self._settings, self._logs = settings, logs
        self._stack = ExitStack()
        self._testbed: Testbed | None = None
        self._ground: Ground | None = None

    def __enter__(self) -> Theatre:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def _clear(self) -> None:
        self._testbed = self._ground = None
        self._stack.close()

    def _testbed_on(self, ground: Ground) -> Testbed:
        if self._testbed is None or ground != self._ground:
            self._clear()
            self._testbed = self._stack.enter_context(
                Testbed(
                    "a" if ground.cluster else "ab",
                    _SETTINGS,
                    clusters="b" if ground.cluster else "",
                    driver=drivers.driver(self._settings.driver, binary=self._settings.binary),
                    network=self._stack.enter_context(_toxiproxy()) if ground.network else None,
                    disk_mb=ground.disk_mb,
                    lines=ground.lines,
                )
            )
            self._ground = ground
        self._testbed.timeline.take()
        return self._testbed

    def play(self, scenario: Scenario, say: Callable[[str], None]) -> Result:
        """Play one scenario with an organization of its own."""
        started, begun = dt.datetime.now(dt.UTC), time.monotonic()
        outcome, message = "passed", ""
        try:
            testbed = self._testbed_on(scenario.ground)
            customer = Customer(testbed, self._settings.keys)
            customer.check("first")
            testbed.timeline.note("scenario", f"steady: {self._settings.keys:,} keys in the first keystore", "passed")
            say(f"steady: {self._settings.keys:,} keys in the first keystore, {time.monotonic() - begun:.1f} s")
            scenario.play(Stage(testbed, customer, self._settings, say))
        except AssertionError as error:
            outcome, message = "failed", str(error)
        except TimeoutError as error:
            outcome, message = "failed", str(error)
        except Unsupported as error:
            outcome, message = "skipped", str(error)
        except HarnessError as error:
            outcome, message = "error", str(error)
        except Exception:  # noqa: BLE001 - other scenarios shall still run; the trace is in the result
            outcome, message = "error", traceback.format_exc()
        timeline = self._testbed.timeline.take() if self._testbed is not None else Timeline()
        logs = _logs(self._testbed) if self._testbed is not None else {}
        ends = {name: "\n".join(text.splitlines()[-_LOG_LINES:]) for name, text in logs.items()}
        shown = ends if outcome in ("failed", "error") else {}
        if outcome != "passed" or scenario.spoils:
            # Removed with the next scenario, or at the end: a fault of that is no reason not to play the others.
            self._ground = None
        files = self._keep(scenario.name, logs)
        return Result(scenario, outcome, message, time.monotonic() - begun, timeline, started, shown, files)

    def _keep(self, scenario: str, logs: Mapping[str, str]) -> dict[str, Path]:
        """Write logs to files, for they go with the servers; return where they are."""
        if self._logs is None:
            return {}
        folder = self._logs / scenario
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: folder / f"{name}.log" for name in logs}
        for name, path in files.items():
            path.write_text(logs[name])
        return files


def _toxiproxy() -> Toxiproxy:
    try:
        return Toxiproxy(find_toxiproxy())
    except HarnessError as error:
        raise Unsupported(str(error)) from None


def _logs(testbed: Testbed) -> dict[str, str]:
    """Return every log of a landscape, by what wrote it."""
    found = {"service": testbed.service.log.read_text(errors="replace") if testbed.service.log.exists() else ""}
    for place in testbed.vaults.values():
        with suppress(HarnessError, OSError):
            found[place.name] = place.log()
    return found
