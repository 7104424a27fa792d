"""Which Pulumi resource manages an object of the service.

A resource that is renamed, or replaced, is created first and deleted afterwards: both are the same object here. So each
resource has a mark of its own, which the object bears that it manages; a deletion removes only what still bears it.
People, who delete on purpose by the command or the console, have none (None) and are not asked for one. A resource
whose state is of a version without marks gives an empty one: it manages only what bears none.
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy.orm import Session

from pulumi_keystore.control_plane.organizations import history
from pulumi_keystore.errors import ManagedElsewhere


class Owned(Protocol):
    """A row that a resource can manage."""

    owner_mark: str | None


def is_anothers(row: Owned, mark: str | None) -> bool:
    """Tell whether another resource manages an object than the one of this mark."""
    return bool(mark and row.owner_mark and row.owner_mark != mark)


def take_over(
    session: Session, actor: str, organization_id: int, row: Owned, mark: str | None, *, what: str, action: str
) -> list[str]:
    """Let an object bear the mark of the resource that declares it now.

    Where it bore another, a warning is returned, and history has it under the name of an action.
    """
    warnings = []
    if is_anothers(row, mark):
        warnings.append(f"{what} was managed by another Pulumi resource, and is managed by this one from now on")
        history.append(session, organization_id, actor, action, warnings[0])
    if mark:
        row.owner_mark = mark
    return warnings


def require_owned(row: Owned, mark: str | None, what: str) -> None:
    """Raise where the resource that asks for a deletion does not manage the object any more.

    Raises:
        ManagedElsewhere: Another one does, or nobody since a person made the object anew; nothing is removed.

    """
    if mark is None or row.owner_mark == (mark or None):
        return
    raise ManagedElsewhere(
        f"{what} is managed by another Pulumi resource now, and stays"
        if row.owner_mark
        else f"{what} was created again by another owner, and stays",
        hint="delete it with the keystore command or in the console",
    )
