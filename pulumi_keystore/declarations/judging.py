"""Judging a declaration: every rule that can be applied is, and all violations are found."""

from __future__ import annotations

from collections.abc import Callable, Collection

from pulumi_keystore.errors import RuleViolation


class Judgement:
    """Collects the violations of a declaration.

    Args:
        unknown: Inputs whose value is not known yet, or not seen here: what needs one of them is not judged.

    """

    def __init__(self, unknown: Collection[str]) -> None:
        self._unknown = frozenset(unknown)
        self.violations: list[RuleViolation] = []

    def attempt(self, judge: Callable[[], object], *needed: str) -> None:
        """Apply a rule, which needs some inputs."""
        if self._unknown.isdisjoint(needed):
            try:
                judge()
            except RuleViolation as violation:
                self.violations.append(violation)


def as_text(value: object) -> str:
    """Return an input as the text that is judged; one that is left out is empty."""
    return "" if value is None else str(value)
