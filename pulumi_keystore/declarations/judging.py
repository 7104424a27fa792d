"""Judging a declaration: every rule that can be applied is, and all violations are found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pulumi_keystore.declarations.names import check_name, check_organization
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

    def attempt_names(self, given: Mapping[str, Any], prop: str) -> None:
        """Apply the rules on the name of an organization, and on that of its keystore, which an input holds."""
        self.attempt(lambda: check_organization(as_text(given.get("organization"))), "organization")
        self.attempt(lambda: check_name(as_text(given.get(prop)), prop), prop)


def as_text(value: object) -> str:
    """Return an input as the text that is judged; one that is left out is empty."""
    return "" if value is None else str(value)
