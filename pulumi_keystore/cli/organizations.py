"""`keystore organization …`, and its history."""

from __future__ import annotations

import sys
from contextlib import suppress
from enum import StrEnum
from itertools import islice
from typing import Annotated, Final

import typer

from pulumi_keystore.answers import HistoryAnswer
from pulumi_keystore.cli.output import (
    Columns,
    Format,
    FormatOption,
    OrganizationArgument,
    ask,
    print_rows,
    say,
    say_older,
    show,
)
from pulumi_keystore.client import Client
from pulumi_keystore.declarations.problems import Order, ProblemFilter
from pulumi_keystore.errors import InvalidInput, NotAllowed

commands = typer.Typer()


_COLUMNS: Final[Columns] = {
    "name": "name",
    "environment": "environment",
    "active keystore": "active_keystore",
    "keys": "archive_keys",
    "state": lambda row: ", ".join(row["problems"]) or ("in maintenance" if row["maintenance"] else "ready"),
}


def _details(row: HistoryAnswer) -> str:
    """Return an entry in one text; the receipt of a migration takes half a page (`keystore migration show`)."""
    detail = (row["detail"] or "").partition("; receipt: ")[0]
    return f"{row['action']}: {detail}" if detail else row["action"]


_HISTORY: Final[Columns] = {
    "date & time": "at",
    "user": "actor",
    "action details": _details,
}


class HistoryFormat(StrEnum):
    """How a history is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


organization_app = typer.Typer(help="Manage organizations, the customers of the backup service.", no_args_is_help=True)


@organization_app.command("create")
def organization_create(
    organization: OrganizationArgument,
    environment: Annotated[str, typer.Option(help="cloud or federal.")] = "cloud",
    output: FormatOption = Format.TABLE,
) -> None:
    """Create an organization. Succeeds if it already exists."""
    with ask() as service:
        show(service.put_organization(organization, environment), output)


@organization_app.command("list")
def organization_list(
    search: Annotated[str, typer.Option(help="Only those whose name contains this.")] = "",
    problem: Annotated[ProblemFilter | None, typer.Option(help="Only those with this problem.")] = None,
    sort: Annotated[Order, typer.Option(help="Order of the list.")] = Order.PROBLEMS,
    after: Annotated[str, typer.Option(help="Only those that come after this one in the list.")] = "",
    limit: Annotated[int, typer.Option(help="Maximum number of organizations.", min=1)] = 1000,
    output: FormatOption = Format.TABLE,
) -> None:
    """List the organizations your token can view, those with problems first, and count the problems.

    Problems: suspended (a keystore is newer than the database), offline, keys-missing (the latest count or audit
    did not find every key), migration-failed (in the last seven days), certificate (expires within 30 days) and
    no-alerts (no one is alerted when the keystore is offline).
    """
    with ask() as service:
        rows = list(islice(service.organizations(search, problem, sort, after), limit + 1))
        counts = _counts(service)
    print_rows(rows[:limit], _COLUMNS, output)
    if output is Format.TABLE and counts:
        say(f"problems: {counts}")
    if len(rows) > limit:
        last = rows[limit - 1]["name"]
        say(f"there are more organizations: narrow the list with --search or --problem, or go on with `--after {last}`")


def _counts(service: Client) -> str:
    """Return how many organizations have which problem; nothing for a token of one organization, which may not ask."""
    with suppress(NotAllowed):
        return ", ".join(f"{count:,} {word}" for word, count in service.problems().items() if count)
    return ""


@organization_app.command("show")
def organization_show(organization: OrganizationArgument, output: FormatOption = Format.TABLE) -> None:
    """Show one organization."""
    with ask() as service:
        show(service.organization(organization), output)


@organization_app.command("delete")
def organization_delete(organization: OrganizationArgument) -> None:
    """Delete an organization that has no keystores and no keys."""
    with ask() as service:
        service.delete_organization(organization)


@commands.command()
def history(
    organization: Annotated[
        str | None, typer.Argument(help="Name of the organization; without one, the service's own history.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Number of most recent entries.", min=1, max=10_000)] = 100,
    before: Annotated[int | None, typer.Option(help="Only entries before the one with this id.", min=1)] = None,
    output: Annotated[
        HistoryFormat, typer.Option("--format", help="Output format; csv exports the whole history.")
    ] = HistoryFormat.TABLE,
) -> None:
    """Show who did what and when, oldest first.

    The service's own history tells which organizations and tokens were created and removed.
    """
    with ask() as service:
        if output is HistoryFormat.CSV:
            if organization is None:
                raise InvalidInput("csv is for the history of an organization", hint="name one, or use json")
            sys.stdout.write(service.export_history(organization, "csv"))
            return
        found = service.history(organization, limit + 1, before)
    rows = found[-limit:]
    print_rows(rows, _HISTORY, Format(output))
    if len(found) > limit:
        say_older(rows[0]["id"])
