"""How results and errors are shown; what several commands have in common."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, NoReturn, TextIO

import typer
from rich.console import Console
from rich.table import Table

from pulumi_keystore.client import Client
from pulumi_keystore.clock import now_utc
from pulumi_keystore.errors import InvalidInput, KeystoreError


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


OrganizationArgument = Annotated[str, typer.Argument(help="Name of the organization.", show_default=False)]
FormatOption = Annotated[Format, typer.Option("--format", help="Output format.")]
_IN_A_PIPE: Final = 1_000_000
_COMMAND: Final = re.compile("`[^`]*`")
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"


def _console(stream: TextIO, *, stderr: bool) -> Console:
    # Lines in a pipe are never wrapped, so that grep works on them.
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _IN_A_PIPE
    return Console(stderr=stderr, soft_wrap=True, highlight=False, width=width)


out = _console(sys.stdout, stderr=False)
err = _console(sys.stderr, stderr=True)


def fail(error: KeystoreError, options: Collection[str]) -> NoReturn:
    """Say what went wrong and what to do, by the options that the command has; end with status 1."""
    rule = f" [{error.rule}]" if error.rule else ""
    say(f"error: {_by_option(error, options)}{rule}", 7)
    if error.hint:
        say(f"hint: {error.hint}", 6)
    raise SystemExit(1)


def say(text: str, indent: int = 0) -> None:
    """Write lines to standard error, each as it fits the terminal, with its further lines indented."""
    sys.stderr.write("".join(f"{wrapped(line, indent, err)}\n" for line in text.splitlines()))


_OPTIONS = {
    "notify_email": "--notify",
    "recipients": "--recipient",
    "webhook": "--webhook-file",
    "certificate_password": "--password-file",
}
"""Options whose property is not called as they are."""


def _by_option(error: KeystoreError, options: Collection[str]) -> str:
    """Return what is wrong, with the option that sets it, given or not, in the place of its property."""
    prop = error.prop or ""
    option = _OPTIONS.get(prop, f"--{prop.replace('_', '-')}")
    return error.summary.replace(f"{prop}: ", f"{option}: ", 1) if option in options else error.summary


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


def span(seconds: float, units: int = 2) -> str:
    """Return a duration as people say it, as in "2 h 5 min", in its largest units."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if number]
    return " ".join(parts[:units]) or f"{seconds} s"


KeystoreArgument = Annotated[str, typer.Argument(help="Name of the keystore.", show_default=False)]
ReasonOption = Annotated[str, typer.Option(help="Reason, recorded in the history.", show_default=False)]
YesOption = Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")]


_PASSWORD = re.compile(r"://[^/?#@]*:[^/?#@]+@|[?&](ssl)?password=.", re.IGNORECASE)
Columns = Mapping[str, "str | Callable[[Any], object]"]
"""The columns of a table by their headings: the field of a row, or what makes the text of a row."""


def say_older(last: int | str) -> None:
    """Say how to see what a list has before its last row."""
    say(f"there are older ones: see them with `--before {last}`")


def print_json(value: Any) -> None:
    """Print a result for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def show(row: Mapping[str, object], output: Format) -> None:
    """Print one object."""
    if output is Format.JSON:
        print_json(row)
    else:
        pairs({name.replace("_", " "): value for name, value in row.items() if value != []})


def pairs(values: Mapping[str, object], console: Console = out) -> None:
    """Print names and values below each other, as a result or beside one."""
    given = {name: value for name, value in values.items() if value is not None}
    width = max(map(len, given))
    for name, value in given.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else text_of(name, value)
        console.print(wrapped(f"{name:<{width}}  {text}", width + 2, console), markup=False)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Columns, output: Format) -> None:
    """Print a table of some columns, which fits 80 characters with names of usual length, or everything as JSON."""
    if output is Format.JSON:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading.upper(), overflow="fold")
    for row in rows:
        values = (row[of] if isinstance(of, str) else of(row) for of in columns.values())
        table.add_row(*map(text_of, columns.values(), values))
    if rows:
        out.print(table, markup=False, soft_wrap=False)
    else:
        say("nothing to show")


def print_below(text: str) -> None:
    """Print what belongs to the line above."""
    out.print(wrapped(f"    {text}", 4), markup=False)


def wrapped(line: str, indent: int, console: Console = out) -> str:
    """Return a line as it fits the terminal: what follows the first `indent` characters in lines below each other.

    A command in a hint stays whole, so that it can be copied.
    """
    if len(line) <= console.width:
        return line
    text = _COMMAND.sub(lambda command: command[0].replace(" ", _NO_BREAK), line[indent:])
    lines = textwrap.wrap(text, max(console.width - indent, 20), break_on_hyphens=False)
    return line[:indent] + ("\n" + " " * indent).join(lines).replace(_NO_BREAK, " ")


def text_of(name: object, value: object) -> str:
    """Return a value as people read it; the name of its field tells whether it is a time."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(name, str) and (name.replace(" ", "_").endswith(("_at", "_after")) or name == "at"):
        return local_time(str(value))
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def local_time(stamp: str) -> str:
    """Return a UTC time stamp in the reader's zone, and how long ago that was, or how far ahead it is."""
    return f"{datetime.fromisoformat(stamp).astimezone():%Y-%m-%d %H:%M:%S %Z}, {_away(stamp, units=2)}"


def age(stamp: str | None) -> str | None:
    """Return only how long ago a UTC time stamp was, or how far ahead it is, in one unit: what a list has room for."""
    return _away(stamp, units=1) if stamp else None


def _away(stamp: str, units: int) -> str:
    seconds = (datetime.fromisoformat(stamp) - now_utc()).total_seconds()
    return f"in {span(seconds, units)}" if seconds > 0 else f"{span(-seconds, units)} ago"


def local_minute(stamp: str | None) -> str | None:
    """Return the same without its seconds, as lists have it."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M %Z") if stamp else None
