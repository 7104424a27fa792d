"""The `keystore` command with named moments (`pulumi_keystore.failpoints`) that act, as tests of crashes need it.

What shall happen stands in the file `plan` of the folder that TORTURE names, a line each: a moment, or `*` for any, and
`kill` or `wait`. When the first line's moment comes, in whichever process, that process takes the line away and
kills itself, or waits until there is a file `go`. Every moment that comes is written to a file `reached-PID`. The wall
clock is wrong by as many seconds as a file `clock` says.
"""

import datetime as dt
import os
import signal
import time
from pathlib import Path
from types import FunctionType

from pulumi_keystore import clock, failpoints

FOLDER = Path(os.environ["TORTURE"])
_reached = os.open(FOLDER / f"reached-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
_seen: set[str] = set()


def act(point: str) -> None:
    if point not in failpoints.POINTS:
        raise AssertionError(f"{point} is not in POINTS")
    if point not in _seen:
        _seen.add(point)
        os.write(_reached, f"{point}\n".encode())
    plan = FOLDER / "plan"
    try:
        first, _, rest = plan.read_text().partition("\n")
    except FileNotFoundError:
        return
    wanted, _, action = first.partition(" ")
    if wanted not in (point, "*"):
        return
    try:
        # Who moves it away has it; the others find nothing.
        plan.rename(FOLDER / f"taken-{os.getpid()}")
    except FileNotFoundError:
        return
    if rest:
        (FOLDER / "next").write_text(rest)
        (FOLDER / "next").rename(plan)
    (FOLDER / "struck").write_text(f"{point} {os.getpid()}")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.monotonic() + 240
    while not (FOLDER / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.005)


def offset() -> float:
    try:
        return float((FOLDER / "clock").read_text() or 0)
    except FileNotFoundError:
        return 0.0


def reached(point: str) -> None:
    act(point)


def shifted() -> dt.datetime:
    return right_now() + dt.timedelta(seconds=offset())  # type: ignore[name-defined] # noqa: F821 - it runs in `clock`


if __name__ == "__main__":
    # Their code is replaced, not their names: who has imported them already has them changed, too.
    vars(failpoints).update(act=act)
    vars(clock).update(dt=dt, offset=offset, right_now=FunctionType(clock.now_utc.__code__, vars(clock)))
    failpoints.reach.__code__ = reached.__code__
    clock.now_utc.__code__ = shifted.__code__
    right_time = time.time
    time.time = lambda: right_time() + offset()
    from pulumi_keystore.cli import main

    main()
