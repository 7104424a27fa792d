"""`keystore migration …`."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pulumi_keystore.answers import MigrationAnswer, MigrationPlanAnswer
from pulumi_keystore.cli.output import (
    Columns,
    Format,
    FormatOption,
    OrganizationArgument,
    YesOption,
    ask,
    err,
    local_minute,
    out,
    pairs,
    print_json,
    print_rows,
    say,
    say_older,
    show,
    span,
)
from pulumi_keystore.client import Client
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.migration import Phase, State, has_ended
from pulumi_keystore.errors import KeystoreError

_WHOLE_ID: Final = 36
_SHORT_ID: Final = 8
_COLUMNS: Final[Columns] = {
    "started": lambda row: local_minute(row["started_at"]),
    "from": lambda row: _name(row["source"]),
    "to": lambda row: _name(row["destination"]),
    "state": "state",
    "keys": lambda row: f"{row['done']:,} of {row['total']:,}",
    "id": lambda row: row["id"][:_SHORT_ID],
}
MigrationArgument = Annotated[
    str | None,
    typer.Argument(help="Migration id, or how it begins; defaults to the latest.", show_default=False),
]
migration_app = typer.Typer(help="Move all archive keys to another keystore.", no_args_is_help=True)


@migration_app.command("plan")
def migration_plan(
    organization: OrganizationArgument,
    destination: Annotated[str, typer.Argument(help="Keystore to make active.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what a migration would do, without changing anything."""
    with ask() as service:
        plan = service.plan_migration(organization, destination)
    if output is Format.JSON:
        print_json(plan)
    else:
        pairs(_planned(plan))


def _planned(plan: MigrationPlanAnswer) -> dict[str, object]:
    """Return what a migration would do, by its names."""
    return {
        "organization": plan["organization"],
        "source": plan["source"],
        "destination": plan["destination"],
        "moves": plan["moves"],
        "keys": plan["keys"],
        "takes about": span(plan["estimate_s"]),
        "retains the source for": span(plan["retain_s"]) if plan["retain_s"] else None,
        "alerts": "carried over to the destination" if plan["carries_alerts"] else None,
        "unreachable": plan["unreachable"] or None,
    }


@migration_app.command("start")
def migration_start(
    organization: OrganizationArgument,
    destination: Annotated[str, typer.Argument(help="Keystore to make active.", show_default=False)],
    notify: Annotated[
        str | None,
        typer.Option(
            help="Email address to notify about the migration, or none; asked for on a terminal.", show_default=False
        ),
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Accept new keys during the migration; they wait only briefly at the end.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Wait and show progress.")] = True,
    yes: YesOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Move all archive keys to another keystore and make it the active one, or change nothing.

    On a terminal it shows what will happen and asks first. A migration to the same keystore that is already running
    is joined, unless it was started with other options.

    Exit status: 0 succeeded (or started, with --no-watch), 1 failed.
    """
    asks = not yes and sys.stdin.isatty()
    if notify is None and not asks:
        raise typer.BadParameter("say whom to notify: an email address, or none", param_hint="'--notify'")
    with ask() as service:
        if asks:
            plan = service.plan_migration(organization, destination)
            pairs(_planned(plan), err)
            if plan["moves"]:
                notify = notify or typer.prompt("Email address to notify (none for no one)", err=True)
                if not typer.confirm("Start the migration?", err=True):
                    raise typer.Exit(1)
        row = service.start_migration(organization, destination, notify, "online" if online else "maintenance")
        if row is None:
            say(f"{destination} is already the active keystore; nothing to move")
            return
        if watch:
            _watch(service, organization, row["id"], output)
        else:
            _show(row, output)


@migration_app.command("list")
def migration_list(
    organization: OrganizationArgument,
    limit: Annotated[int, typer.Option(help="Number of most recent migrations.", min=1)] = 50,
    before: Annotated[str | None, typer.Option(help="Only migrations before the one with this id.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List the migrations of an organization, newest first."""
    with ask() as service:
        rows = service.migrations(organization, limit + 1, before and _find(service, organization, before))
    print_rows(rows[:limit], _COLUMNS, output)
    if len(rows) > limit:
        say_older(rows[limit - 1]["id"])


@migration_app.command("show")
def migration_show(
    organization: OrganizationArgument, migration: MigrationArgument = None, output: FormatOption = Format.TABLE
) -> None:
    """Show one migration with its receipt: what was counted at both ends, where, when and for whom."""
    with ask() as service:
        row = service.migration(organization, _find(service, organization, migration))
    _show(row, output)
    if row["receipt"] and output is Format.TABLE:
        out.print("receipt", markup=False)
        further = {name: value for name, value in row["receipt"].items() if name not in (*row, "migration")}
        pairs({f"  {name.replace('_', ' ')}": value for name, value in further.items()})


@migration_app.command("watch")
def migration_watch(
    organization: OrganizationArgument,
    migration: MigrationArgument = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the progress of a migration until it ends; Ctrl-C leaves it running.

    Exit status: 0 succeeded, 1 failed.
    """
    with ask() as service:
        _watch(service, organization, _find(service, organization, migration), output)


@migration_app.command("cancel")
def migration_cancel(
    organization: OrganizationArgument,
    migration: MigrationArgument = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Cancel a running migration: all keys stay in the source, and the copies at the destination are removed.

    Exit status: 0 canceled, 1 too late: the migration has ended or was already decided.
    """
    with ask() as service:
        migration = _find(service, organization, migration)
        row = service.cancel_migration(organization, migration)
        while row["state"] == State.RUNNING:
            time.sleep(0.2)
            row = service.migration(organization, migration)
    _show(row, output)
    if row["state"] == State.SUCCEEDED:
        raise KeystoreError(
            f"the migration {migration} was already decided", hint="start another migration to move back"
        )


@migration_app.command("undo")
def migration_undo(
    organization: OrganizationArgument,
    migration: MigrationArgument = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Undo the latest migration while the source still retains its keys.

    KEYSTORE_RETAIN_S sets how long the service retains them; by default it empties the source immediately. Keys
    enrolled since the migration are copied back first.
    """
    with ask() as service:
        row = service.undo_migration(organization, _find(service, organization, migration))
    if output is Format.JSON:
        print_json(row)
    else:
        out.print(f"undone: {_name(row['source'])} is the active keystore again", markup=False)


def _find(service: Client, organization: str, given: str | None) -> str:
    """Return the id of a migration of which the beginning may be given; of the latest where nothing is."""
    if given is not None and len(given) >= _WHOLE_ID:
        return given
    rows = service.migrations(organization, 1 if given is None else None)
    if not rows:
        raise KeystoreError(
            f"the organization {organization!r} has no migrations", hint="start one, or run `pulumi up`"
        )
    found = [row["id"] for row in rows if row["id"].startswith(given or "")]
    if given is not None and len(found) != 1:
        raise KeystoreError(
            f"{len(found) or 'no'} migrations of {organization!r} begin with {given!r}",
            hint=f"see `keystore migration list {organization}`",
        )
    return found[0]


def _show(row: MigrationAnswer, output: Format) -> None:
    """Print a migration; its receipt is for `migration show`."""
    if output is Format.TABLE and row["cancel_by"] and row["state"] == State.CANCELED:
        show({**row, "receipt": None, "ending": _ended(row), "detail": None, "cancel_by": None}, output)
    else:
        show({**row, "receipt": None} if output is Format.TABLE else row, output)


def _watch(service: Client, organization: str, migration: str, output: Format) -> None:
    row = service.migration(organization, migration)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeElapsedColumn(), console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(row["phase"], total=row["total"], rate="")
        told = ""
        while True:
            rate = f"{row['rate']:,.0f} keys/s" if row["rate"] else ""
            progress.update(task, description=row["phase"], completed=_moved(row), rate=rate)
            line = progress_line(row)
            if not err.is_terminal and line != told:
                say(line)
                told = line
            if has_ended(row["state"], row["phase"]):
                break
            time.sleep(0.5)
            row = service.migration(organization, migration)
    if output is Format.JSON:
        print_json(row)
    else:
        out.print(_ended(row), markup=False)
    if row["state"] != State.SUCCEEDED:
        raise typer.Exit(1)


def _ended(row: MigrationAnswer) -> str:
    """Say how a migration ended; where somebody canceled it, nothing was stalled."""
    if row["state"] == State.CANCELED and row["cancel_by"]:
        return f"Migration canceled by {row['cancel_by']}"
    return f"{row['ending']}: {row['detail']}" if row["detail"] else str(row["ending"])


def _name(label: str) -> str:
    """Return the name of a keystore that is labelled with its address, too."""
    return label.partition(" (")[0]


def _moved(row: MigrationAnswer) -> int:
    return int(row["verified"] if row["phase"] == Phase.VERIFY else row["done"])


def progress_line(row: MigrationAnswer) -> str:
    """Return in one line how far a migration is."""
    parts = [f"{row['phase']}: {_moved(row):,} of {count(row['total'], 'key')}"]
    if row["rate"]:
        parts.append(f"{row['rate']:,.0f} keys/s")
    if row["remaining_s"]:
        parts.append(f"{row['remaining_s']:,.0f} s left")
    return ", ".join(parts)
