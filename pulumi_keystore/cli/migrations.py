"""`keystore migration …`."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pulumi_keystore.answers import MigrationAnswer
from pulumi_keystore.cli.output import (
    Format,
    FormatOption,
    OrganizationArgument,
    ask,
    err,
    out,
    pairs,
    print_json,
    print_rows,
    show,
    span,
)
from pulumi_keystore.client import Client
from pulumi_keystore.errors import KeystoreError

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
        pairs(
            {
                "organization": plan["organization"],
                "source": plan["source"],
                "destination": plan["destination"],
                "moves": plan["moves"],
                "keys": plan["keys"],
                "takes about": span(plan["estimate_s"]),
                "retains the source for": span(plan["retain_s"]) if plan["retain_s"] else None,
            }
        )


@migration_app.command("start")
def migration_start(
    organization: OrganizationArgument,
    destination: Annotated[str, typer.Argument(help="Keystore to make active.", show_default=False)],
    notify: Annotated[str | None, typer.Option(help="Email address to notify about the migration.")] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Accept new keys during the migration; they wait only briefly at the end.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Wait and show progress.")] = True,
    output: FormatOption = Format.TABLE,
) -> None:
    """Move all archive keys to another keystore and make it the active one, or change nothing.

    Exit status: 0 succeeded (or started, with --no-watch), 1 failed.
    """
    with ask() as service:
        row = service.start_migration(organization, destination, notify, "online" if online else "maintenance")
        if row is None:
            err.print(f"{destination} is already the active keystore; nothing to move", markup=False)
            return
        if watch:
            _watch(service, organization, row["id"], output)
        else:
            show(row, output)


@migration_app.command("list")
def migration_list(organization: OrganizationArgument, output: FormatOption = Format.TABLE) -> None:
    """List the migrations of an organization, newest first."""
    with ask() as service:
        rows = service.migrations(organization)
    print_rows(rows, ("started_at", "source", "destination", "state", "done", "total", "rate", "ending", "id"), output)


@migration_app.command("watch")
def migration_watch(
    organization: OrganizationArgument,
    migration: Annotated[
        str | None, typer.Argument(help="Migration id; defaults to the latest.", show_default=False)
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the progress of a migration until it ends; Ctrl-C leaves it running.

    Exit status: 0 succeeded, 1 failed.
    """
    with ask() as service:
        _watch(service, organization, migration or _latest(service, organization), output)


@migration_app.command("cancel")
def migration_cancel(
    organization: OrganizationArgument,
    migration: Annotated[
        str | None, typer.Argument(help="Migration id; defaults to the latest.", show_default=False)
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Cancel a running migration: all keys stay in the source, and the copies at the destination are removed.

    Exit status: 0 canceled, 1 too late: the migration has ended or was already decided.
    """
    with ask() as service:
        migration = migration or _latest(service, organization)
        row = service.cancel_migration(organization, migration)
        while row["state"] == "running":
            time.sleep(0.2)
            row = service.migration(organization, migration)
    show(row, output)
    if row["state"] == "succeeded":
        raise KeystoreError(
            f"the migration {migration} was already decided", hint="start another migration to move back"
        )


@migration_app.command("undo")
def migration_undo(
    organization: OrganizationArgument,
    migration: Annotated[
        str | None, typer.Argument(help="Migration id; defaults to the latest.", show_default=False)
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Undo the latest migration while the source still retains its keys.

    KEYSTORE_RETAIN_S sets how long the service retains them; by default it empties the source immediately. Keys
    enrolled since the migration are copied back first.
    """
    with ask() as service:
        show(service.undo_migration(organization, migration or _latest(service, organization)), output)


def _latest(service: Client, organization: str) -> str:
    rows = service.migrations(organization)
    if not rows:
        raise KeystoreError(
            f"the organization {organization!r} has no migrations", hint="start one, or run `pulumi up`"
        )
    return str(rows[0]["id"])


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
                err.print(line, markup=False)
                told = line
            if row["state"] != "running" and row["phase"] == "ended":
                break
            time.sleep(0.5)
            row = service.migration(organization, migration)
    if output is Format.JSON:
        print_json(row)
    else:
        out.print(f"{row['ending']}: {row['detail']}" if row["detail"] else row["ending"], markup=False)
    if row["state"] != "succeeded":
        raise typer.Exit(1)


def _moved(row: MigrationAnswer) -> int:
    return int(row["verified"] if row["phase"] == "verify" else row["done"])


def progress_line(row: MigrationAnswer) -> str:
    """Return in one line how far a migration is."""
    parts = [f"{row['phase']}: {_moved(row):,} of {row['total']:,} keys"]
    if row["rate"]:
        parts.append(f"{row['rate']:,.0f} keys/s")
    if row["remaining_s"]:
        parts.append(f"{row['remaining_s']:,.0f} s left")
    return ", ".join(parts)
