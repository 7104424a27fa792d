"""Named moments at which tests stop a process, kill one, or break a server.

In this package a moment is a name and nothing else: `reach` does nothing, and no setting, file or variable can make it
do something. The tests of crashes start the service by a launcher of their own, which puts another function in its
place before anything runs; that launcher is not part of what is published.
"""

from __future__ import annotations

from typing import Final

MIGRATION: Final = frozenset(
    {
        # Asked for: the API has checked both ends, and has written the migration down.
        "start.checked", "start.recorded",
        # Each step of the workflow: it begins, its work is done, its outcome is recorded.
        "preflight.begun", "preflight.done", "preflight.recorded",
        "copy.begun", "copy.planned", "copy.done", "copy.recorded",
        "verify.begun", "verify.fenced", "verify.planned", "verify.done", "verify.recorded",
        "decide.begun", "decide.undecided", "decide.done", "decide.recorded",
        "clean-up.begun", "clean-up.removing", "clean-up.removed", "clean-up.done", "clean-up.recorded",
        "roll-back.begun", "roll-back.fenced", "roll-back.removed", "roll-back.done", "roll-back.recorded",
        # A worker and one shard of the keys.
        "shard.claimed", "shard.granted", "shard.copying", "shard.copied",
        "shard.verifying", "shard.verified", "shard.recorded",
    }
)  # fmt: skip
MONITOR: Final = frozenset({"health.claimed", "health.tested", "health.recorded", "outbox.delivered"})
"""A health check, and a mail that the server has taken and nobody has written down as sent."""
ENROLMENT: Final = frozenset({"enrolment.sorted-out", "enrolment.written", "enrolment.entered"})
"""Keys are compared with the ledger, are at the keystore, are in the ledger: and nobody has been told so."""
SWAP: Final = frozenset({"swap.proved", "swap.decided", "swap.bound"})
"""What a keystore shall be bound to works, is about to be written down, is."""
POINTS: Final = MIGRATION | MONITOR | ENROLMENT | SWAP
"""Every moment; the tests prove that each is reached."""


def reach(point: str) -> None:
    """Note that a moment of `POINTS` has come."""
