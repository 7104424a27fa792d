"""Which Pulumi resource manages an object of the service.

A resource that is renamed, or replaced, is created first and deleted afterwards: both are the same object here. So each
resource has a mark of its own, which the object bears that it manages; a deletion removes only what still bears it.
People, who delete on purpose by the command or the console, have none and are not asked for one.
"""

from __future__ import annotations

from typing import Protocol

from pulumi_keystore.errors import ManagedElsewhere

UNMARKED = ""
"""What a resource of a version without marks gives: it manages only what bears none."""


class Owned(Protocol):
    """A row that a resource can manage."""

    owner_mark: str | None


def is_anothers(row: Owned, mark: str | None) -> bool:
    """Tell whether another resource manages an object than the one of this mark."""
    return mark is not None and row.owner_mark is not None and row.owner_mark != mark


def take_over(row: Owned, mark: str | None, what: str) -> list[str]:
    """Let an object bear the mark of the resource that declares it now; return a warning where it bore another."""
    warnings = []
    if is_anothers(row, mark):
        warnings.append(f"{what} was managed by another Pulumi resource, and is managed by this one from now on")
    if mark:
        row.owner_mark = mark
    return warnings


def require_owned(row: Owned, mark: str | None, what: str) -> None:
    """Raise where the resource that asks for a deletion does not manage the object any more.

    Raises:
        ManagedElsewhere: Another one does; nothing is removed.

    """
    if is_anothers(row, mark):
        raise ManagedElsewhere(
            f"{what} is managed by another Pulumi resource now, and stays",
            hint="destroy that one, or delete it with the keystore command or in the console",
        )
