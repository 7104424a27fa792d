"""How results and errors are shown; what several commands have in common."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from pulumi_keystore.client import Client
from pulumi_keystore.errors import InvalidInput, KeystoreError


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


OrganizationArgument = Annotated[str, typer.Argument(help="Name of the organization.", show_default=False)]
FormatOption = Annotated[Format, typer.Option("--format", help="Output format.")]
# Lines in a pipe are never wrapped, so that grep works on them.
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def fail(error: KeystoreError) -> NoReturn:
    """Say what went wrong and what to do; end with status 1."""
    rule = f" [{error.rule}]" if error.rule else ""
    sys.stderr.write(f"error: {_by_option(error)}{rule}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
    raise SystemExit(1)


_OPTIONS = {"notify_email": "--notify", "recipients": "--recipient", "webhook": "--webhook-file"}
"""Options whose property is not called as they are."""


def _by_option(error: KeystoreError) -> str:
    """Return what is wrong, with the option that was given for it in the place of its property."""
    prop = error.prop or ""
    option = _OPTIONS.get(prop, f"--{prop.replace('_', '-')}")
    given = {argument.partition("=")[0] for argument in sys.argv[1:]}
    return error.summary.replace(f"{prop}: ", f"{option}: ", 1) if prop and option in given else error.summary


def ask() -> Client:
    """Return a client of the service that the environment names."""
    environment = os.environ.get
    return Client(environment("KEYSTORE_URL"), environment("KEYSTORE_TOKEN"), environment("KEYSTORE_CA_FILE"))


def without_password(context: typer.Context, option: typer.CallbackParam, value: str | None) -> str | None:
    """Return the value of an option for a URL; one that holds a password has to come in the environment.

    Raises:
        InvalidInput: It came on the command line, which everybody on the machine can read (ps(1)).

    """
    source = context.get_parameter_source(option.name or "")
    if value and source is not None and source.name == "COMMANDLINE" and _PASSWORD.search(value):
        raise InvalidInput(
            f"{option.opts[0]} holds a password, which everyone on this machine can read in the list of processes",
            hint=f"set {option.envvar} instead",
        )
    return value


def span(seconds: float) -> str:
    """Return a duration as people say it, as in "2 h 5 min"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if number]
    return " ".join(parts[:2]) or f"{seconds} s"


KeystoreArgument = Annotated[str, typer.Argument(help="Name of the keystore.", show_default=False)]
ReasonOption = Annotated[str, typer.Option(help="Reason, recorded in the history.", show_default=False)]
YesOption = Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")]


_PASSWORD = re.compile(r"://[^/?#@]*:[^/?#@]+@|[?&](ssl)?password=.", re.IGNORECASE)
_TITLES = {"address_display": "address", "certificate_not_after": "certificate until", "kv_version": "KV"}
"""Columns whose field is not called as people would."""


def print_json(value: Any) -> None:
    """Print a result for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def show(row: Mapping[str, object], output: Format) -> None:
    """Print one object."""
    if output is Format.JSON:
        print_json(row)
    else:
        pairs({name.replace("_", " "): value for name, value in row.items() if value not in (None, [])})


def pairs(values: Mapping[str, object]) -> None:
    """Print names and values below each other."""
    width = max(len(name) for name in values)
    for name, value in values.items():
        if value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else text_of(name, value)
            out.print(f"{name:<{width}}  {text}", markup=False)


def print_rows(rows: Sequence[Mapping[str, object]], columns: tuple[str, ...], output: Format) -> None:
    """Print a table of some columns, or everything as JSON."""
    if output is Format.JSON:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(_TITLES.get(column, column.replace("_", " ")).upper(), overflow="fold")
    for row in rows:
        table.add_row(*(text_of(column, row[column]) for column in columns))
    if rows:
        out.print(table, markup=False, soft_wrap=False)
    else:
        err.print("nothing to show", markup=False)


def text_of(name: str, value: object) -> str:
    """Return a value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.replace(" ", "_").endswith(("_at", "_after")) or name == "at":
        return local_time(str(value))
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def local_time(stamp: str) -> str:
    """Return a UTC time stamp in the reader's zone."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
