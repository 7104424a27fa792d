"""What a process does again and again beside answering requests; none of it ends because one turn fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from pulumi_keystore.control_plane.runtime.leadership import SUPERSEDED_STATUS, Superseded
from pulumi_keystore.errors import KeystoreError

_log = structlog.get_logger(__name__)
_ending: Final = threading.Event()
TURN_S: Final = 2.0
"""How long an owner of several items goes on before it waits for the others."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Work:
    """Background work.

    Attributes:
        name: What logs call it.
        every_s: Seconds from the end of one turn to the next.
        call: One turn.

    """

    name: str
    every_s: float
    call: Callable[[], object]


turns: Final[dict[str, float]] = {}
"""When each work ended its latest turn (seconds since 1970): one that is stuck, or fails each time, falls behind."""


def start(works: Iterable[Work]) -> None:
    """Do each in a thread of its own until the process ends, which it does where another service leads."""
    for work in works:
        turns[work.name] = time.time()
        threading.Thread(target=_repeat, args=(work,), name=work.name, daemon=True).start()


def end() -> None:
    """Begin no further turn: the process ends, and what goes away with it is no reason to end it otherwise."""
    _ending.set()


def _repeat(work: Work) -> None:
    while not _ending.wait(work.every_s):
        try:
            work.call()
            turns[work.name] = time.time()
        except Superseded:
            _log.error("another service leads; stopping", work=work.name)
            os._exit(SUPERSEDED_STATUS)
        except (SQLAlchemyError, KeystoreError) as error:
            _log.warning("background work failed; tried again", work=work.name, error=type(error).__name__)
        except BaseException:  # noqa: BLE001 - nobody would do it any more (and DBOS has some of its own)
            _log.exception("background work failed by a mistake in the program; tried again", work=work.name)


@contextmanager
def isolated(what: str, **of: object) -> Iterator[None]:
    """Let a mistake in the work on one item end with it, and be logged: the other items are somebody else's.

    Raises:
        Superseded: Another service leads: then nothing goes on.

    """
    try:
        yield
    except Superseded:
        raise
    except Exception:  # noqa: BLE001 - that is the point
        _log.exception(f"{what} failed by a mistake in the program", **of)


class Turns:
    """Does something with each item: those of one owner one after the other, in order, those of several side by side.

    Owners that have had one item wait for the next round once a turn is over, and nobody waits for an owner that is
    still busy: what one owner's servers do, and however many items it has, costs the others nothing but its place.

    Args:
        name: What the threads are called.
        at_a_time: How many owners are served side by side.

    """

    def __init__(self, name: str, at_a_time: int) -> None:
        self._several = ThreadPoolExecutor(at_a_time, thread_name_prefix=name)
        self._busy: set[Hashable] = set()
        self._lock = threading.Lock()

    def take(self, items: Iterable[tuple[Hashable, T]], do: Callable[[T], R]) -> list[R]:
        """Begin with each owner that is not busy; return when all have ended, or at the end of a turn.

        What an owner has no time for is left out: it is due again the next time.

        Args:
            items: Owners and their items.
            do: What is done; it has to handle its own errors.

        Returns:
            What was returned for the items of the owners that have ended.

        """
        by_owner: dict[Hashable, list[T]] = {}
        for owner, item in items:
            by_owner.setdefault(owner, []).append(item)
        with self._lock:
            free = by_owner.keys() - self._busy
            self._busy |= free
        begun = [self._several.submit(self._serve, owner, by_owner[owner], do) for owner in by_owner if owner in free]
        ended, _ = wait(begun, TURN_S)
        return [one for each in ended for one in each.result()]

    def _serve(self, owner: Hashable, mine: list[T], do: Callable[[T], R]) -> list[R]:
        done: list[R] = []
        ends = time.monotonic() + TURN_S
        try:
            for item in mine:
                done.append(do(item))
                if time.monotonic() >= ends:
                    break
            return done
        finally:
            with self._lock:
                self._busy.discard(owner)


def stop_unless(leads: bool, otherwise: str) -> None:
    """End the process unless it leads; `otherwise` says what is wrong with its connection to the database."""
    if not leads and not _ending.is_set():
        # Another service may lead now. What we have under way is safe to drop: it is resumed from the database.
        _log.error(f"the database connection that makes this service the leader {otherwise}; stopping")
        os._exit(SUPERSEDED_STATUS)
