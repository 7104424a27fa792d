"""The five ways a migration ends, with the texts that history shows."""

from __future__ import annotations

from enum import StrEnum

from pulumi_keystore.declarations.migration import State


class Ending(StrEnum):
    """How a migration ended; the value is the text in the history (contract)."""

    SUCCEEDED = "Migration succeeded"
    SOURCE_NOT_REACHABLE = "Migration failed: source not reachable"
    DESTINATION_NOT_REACHABLE = "Migration failed: destination not reachable"
    VERIFICATION_FAILED = "Migration failed: destination data failed verification"
    STALLED = "Migration canceled: migration process stalled"

    @property
    def state(self) -> State:
        """The state of a migration that ended so."""
        return {Ending.SUCCEEDED: State.SUCCEEDED, Ending.STALLED: State.CANCELED}.get(self, State.FAILED)


class MigrationFailed(Exception):  # noqa: N818 - it is caught by the workflow alone
    """A migration cannot go on; `detail` is one line without secrets."""

    def __init__(self, ending: Ending, detail: str) -> None:
        super().__init__(ending, detail)
        self.ending = ending
        self.detail = detail
