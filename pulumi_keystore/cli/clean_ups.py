"""`keystore clean-up …`: keys that still have to be removed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import typer

from pulumi_keystore.answers import CleanUpAnswer
from pulumi_keystore.cli.output import (
    Columns,
    Format,
    FormatOption,
    OrganizationArgument,
    ReasonOption,
    age,
    ask,
    print_below,
    print_rows,
    show,
)
from pulumi_keystore.clock import now_utc

clean_up_app = typer.Typer(
    help="Manage the removal of keys from the keystore that a migration left.", no_args_is_help=True
)


def _next(row: CleanUpAnswer) -> str | None:
    """Return in what time the next attempt is made: seconds or minutes, which a date would not show."""
    if row["state"] != "pending":
        return None
    return age(row["next_at"]) if datetime.fromisoformat(row["next_at"]) > now_utc() else "now"


_COLUMNS: Final[Columns] = {
    "id": "id",
    "keystore": "keystore",
    "side": "side",
    "state": "state",
    "attempts": "attempts",
    "next attempt": _next,
}


@clean_up_app.command("list")
def clean_up_list(
    organization: OrganizationArgument,
    all_: Annotated[bool, typer.Option("--all", help="Include finished clean-ups.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """List pending clean-ups and why they are pending."""
    with ask() as service:
        rows = service.clean_ups(organization, ended=all_)
    print_rows(rows, _COLUMNS, output)
    for row in rows if output is Format.TABLE else ():
        print_below(f"{row['id']}: {row['place']}" + (f": {row['detail']}" if row["detail"] else ""))


@clean_up_app.command("retry")
def clean_up_retry(
    organization: OrganizationArgument,
    number: Annotated[int, typer.Argument(help="Number of the clean-up.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Retry a clean-up now. The service also retries it on its own."""
    with ask() as service:
        show(service.retry_clean_up(organization, number), output)


@clean_up_app.command("abandon")
def clean_up_abandon(
    organization: OrganizationArgument,
    number: Annotated[int, typer.Argument(help="Number of the clean-up.", show_default=False)],
    reason: ReasonOption,
    output: FormatOption = Format.TABLE,
) -> None:
    """Abandon a clean-up, for example of a server that is gone for good. Copies of keys may remain there."""
    with ask() as service:
        row = service.abandon_clean_up(organization, number, reason)
    show({**row, "next_at": None} if output is Format.TABLE else row, output)
