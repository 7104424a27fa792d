"""`keystore clean-up …`: what is still to be removed."""

from __future__ import annotations

from typing import Annotated

import typer

from pulumi_keystore.cli.output import Format, FormatOption, OrganizationArgument, ReasonOption, ask, print_rows, show

clean_up_app = typer.Typer(
    help="Keys that are still to be removed from the losing side of a migration.", no_args_is_help=True
)
_CLEAN_UP_COLUMNS = ("id", "keystore", "side", "state", "place", "attempts", "next_at", "detail")


@clean_up_app.command("list")
def clean_up_list(
    organization: OrganizationArgument,
    all_: Annotated[bool, typer.Option("--all", help="Show those that have ended, too.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """List the clean-ups that are pending, and why."""
    with ask() as service:
        print_rows(service.clean_ups(organization, ended=all_), _CLEAN_UP_COLUMNS, output)


@clean_up_app.command("retry")
def clean_up_retry(
    organization: OrganizationArgument,
    number: Annotated[int, typer.Argument(help="Number of the clean-up.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Try a clean-up now; the service tries it again by itself, too."""
    with ask() as service:
        show(service.retry_clean_up(organization, number), output)


@clean_up_app.command("abandon")
def clean_up_abandon(
    organization: OrganizationArgument,
    number: Annotated[int, typer.Argument(help="Number of the clean-up.", show_default=False)],
    reason: ReasonOption,
    output: FormatOption = Format.TABLE,
) -> None:
    """Give a clean-up up, of a server that is gone for good, say: copies of keys may stay there."""
    with ask() as service:
        show(service.abandon_clean_up(organization, number, reason), output)
