"""Makes the tests of every minute, in this process, together with any other process on the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore import failpoints
from pulumi_keystore.answers import ConnectionAnswer
from pulumi_keystore.causes import STEPS
from pulumi_keystore.clock import now_utc
from pulumi_keystore.control_plane.keystores import opening
from pulumi_keystore.control_plane.keystores.opening import tenancy
from pulumi_keystore.control_plane.monitoring import holdings, results, schedule
from pulumi_keystore.control_plane.monitoring.pauses import Pulse
from pulumi_keystore.control_plane.monitoring.probe import Subject, probe
from pulumi_keystore.control_plane.monitoring.schedule import Turn
from pulumi_keystore.control_plane.monitoring.status import Result, Status
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime import background
from pulumi_keystore.control_plane.runtime.background import Work
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.control_plane.runtime.tables import is_away
from pulumi_keystore.errors import KeystoreError, ServiceUnavailable
from pulumi_keystore.vault.requests import Flow
from pulumi_keystore.vault.transport import Transport, without_rest

_ROUNDS: Final = 32
"""Rounds of tests at a time: one that waits for a hanging keystore holds up no other. One begins each second, and ends
at the latest after a test's deadline."""
_ROUND_SIZE: Final = 200
_IN_FLIGHT: Final = 64
_LOOKUPS: Final = 64
_ASKED: Final = 16
"""Threads of their own for tests that someone asks for: they take none from those of each minute."""
_MARGIN_S: Final = 10.0
"""How much longer than a test's deadline its result may take to be written down."""
_log = structlog.get_logger(__name__)


class HealthChecks:
    """Claims the keystores whose minute has come, tests them, and records what it found; also one that is asked for.

    Any number of processes may do so: each keystore is tested once a minute by one of them.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._pulse = Pulse()
        self._rounds = ThreadPoolExecutor(_ROUNDS, thread_name_prefix="minute-tests")
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="look-up")
        self._asked = ThreadPoolExecutor(_ASKED, thread_name_prefix="look-up-asked")
        self._free = threading.Semaphore(_ROUNDS)

    def start(self) -> None:
        """Begin; the tests go on for as long as the process runs."""
        wait_s = min(1.0, self._plane.settings.health_check_interval_s / 10)
        background.start([Work("health checks", wait_s, self._begin_all_due)])

    def look(self, owner: Organization, keystore: Keystore) -> ConnectionAnswer:
        """Test a keystore as each minute, and write nothing down: who may only look moves no timeline and no alert."""
        if keystore.address is None:
            return {"status": Status.ONLINE, "reason": None, "detail": None, "cause": None, "steps": []}
        with self._plane.transaction() as session:
            subject = self._subject(owner, keystore, holdings.in_ledger(session, [keystore.id]))
        with Transport() as transport, without_rest():  # to rest would take of the time that the keystore has
            result = transport.run_one(probe(subject, self._asked, self._plane.settings.health_check_s))
        if result is None:
            raise ServiceUnavailable("the test cannot be made now", hint="try again in a moment")
        return {
            "status": Status.ONLINE if result.online else Status.OFFLINE,
            "reason": result.reason,
            "detail": result.detail,
            "cause": result.cause,
            "steps": list(STEPS[result.cause]) if result.cause else [],
        }

    def test_now(self, keystore: Keystore) -> bool:
        """Test a keystore because someone asks, and record it: it is what is known of the keystore from then on.

        Where its minute has not been tested yet, it is the test of that minute.

        Returns:
            Whether there is a new result: False while a test is under way, and where this one could not be made.

        """
        lease_s = self._plane.settings.health_check_s + _MARGIN_S
        interval_s = self._plane.settings.health_check_interval_s
        with self._plane.transaction() as session:
            turn = schedule.take(session, self._plane.instance, now_utc(), interval_s, lease_s, keystore.id)
        return turn is not None and self._test([turn]) > 0

    def _begin_all_due(self) -> None:
        ends = time.monotonic() + background.TURN_S
        while self.begin_due() and time.monotonic() < ends:
            pass

    def begin_due(self) -> bool:
        """Begin the tests that are due, as many as a round has; return whether there may be more.

        Raises:
            KeystoreError: None can begin: as many rounds as there may be are under way.

        """
        # A keystore is claimed only when its test can begin at once.
        if not self._free.acquire(timeout=1):
            raise KeystoreError(f"{_ROUNDS} rounds of health checks have not come to their end")
        try:
            lease_s = self._plane.settings.health_check_s + _MARGIN_S
            interval_s = self._plane.settings.health_check_interval_s
            with self._plane.transaction() as session:
                turns = schedule.claim(session, self._plane.instance, now_utc(), interval_s, lease_s, _ROUND_SIZE)
        except BaseException:
            self._free.release()
            raise
        if not turns:
            self._free.release()
            return False
        failpoints.reach("health.claimed")
        self._rounds.submit(self._round, turns)
        return len(turns) == _ROUND_SIZE

    def _round(self, turns: list[Turn]) -> None:
        # Whatever was not recorded is claimed and tested again in a moment.
        try:
            self._test(turns)
        except SQLAlchemyError as error:
            _log.warning("results of health checks cannot be recorded", error=type(error).__name__)
        except Exception:  # noqa: BLE001 - nobody asks for what the thread has to say
            _log.exception("a round of health checks failed by a mistake in the program")
        finally:
            self._free.release()

    def _test(self, turns: list[Turn]) -> int:
        """Test keystores and record what is found; return how many results there are."""
        found: dict[Turn, Result | None] = {}
        results = 0
        with self._plane.transaction() as session:
            ledger = holdings.in_ledger(session, [turn.keystore_id for turn in turns])

        def record() -> None:
            # What has come meanwhile, together: one result does not wait for another, and many are one transaction.
            self._record(found, ledger)
            found.clear()

        subjects = self._subjects(turns, ledger)
        with Transport() as transport, without_rest():
            flows = (self._one(turn, subject) for turn, subject in subjects)
            for turn, result in transport.run(flows, _IN_FLIGHT, record, adaptive=False):
                failpoints.reach("health.tested")
                found[turn] = result
                results += result is not None
        record()
        return results

    def _subjects(self, turns: list[Turn], ledger: Mapping[int, int]) -> list[tuple[Turn, Subject]]:
        by_id = {turn.keystore_id: turn for turn in turns}
        query = select(Keystore, Organization).join(Organization, Organization.id == Keystore.organization_id)
        with self._plane.transaction() as session:
            rows = session.execute(query.where(Keystore.id.in_(by_id))).all()
        subjects = []
        for keystore, owner in rows:
            with background.isolated("health check", keystore=keystore.id):
                try:
                    subject = self._subject(owner, keystore, ledger)
                except KeystoreError as error:
                    # Its certificate does not open: that is our own fault, so there is no result.
                    _log.error("a keystore cannot be tested", keystore=keystore.id, error=type(error).__name__)
                    continue
                subjects.append((by_id[keystore.id], subject))
        return subjects

    def _subject(self, owner: Organization, keystore: Keystore, ledger: Mapping[int, int]) -> Subject:
        endpoint, there = opening.endpoint_of(self._plane, owner, keystore), tenancy(owner, keystore)
        return Subject(endpoint, there, keystore.kv_version, keystore.cluster_id, ledger.get(keystore.id))

    def _one(self, turn: Turn, subject: Subject) -> Flow[tuple[Turn, Result | None]]:
        begun = time.monotonic()
        result: Result | None = None
        # Whatever a server makes of it, the checks of the others go on.
        with background.isolated("health check", keystore=turn.keystore_id):
            lookups = self._asked if turn.asked else self._lookups
            result = yield from probe(subject, lookups, self._plane.settings.health_check_s)
        # A process that was held up has missed the answer: that says nothing about the keystore.
        disturbed = result is not None and not result.online and self._pulse.held_up_since(begun)
        return turn, None if disturbed else result

    def _record(self, found: dict[Turn, Result | None], ledger: Mapping[int, int]) -> None:
        if not found:
            return
        try:
            self._record_together(found, ledger)
        except Exception as error:
            if is_away(error):
                raise  # each alone would wait for it again
            _log.exception("results of health checks cannot be recorded together; recorded one by one")
            for turn, result in found.items():
                with background.isolated("health check", keystore=turn.keystore_id):
                    self._record_together({turn: result}, ledger)

    def _record_together(self, found: dict[Turn, Result | None], ledger: Mapping[int, int]) -> None:
        interval_s = self._plane.settings.health_check_interval_s
        with self._plane.transaction() as session:
            told = results.record(session, self._plane.instance, found, interval_s, ledger)
        failpoints.reach("health.recorded")
        for alert in told:
            _log.info("administrators are told", alert=alert)
