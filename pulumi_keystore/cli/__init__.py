"""The `keystore` command: runs the service and asks it (thin; every decision is the service's)."""

from __future__ import annotations

import sys
from importlib.metadata import version
from io import StringIO
from typing import Annotated, Any, Final, NoReturn, cast

import typer

from pulumi_keystore.cli import (
    check,
    clean_ups,
    doctor,
    keys,
    keystores,
    migrations,
    monitors,
    organizations,
    quickstart,
    registration,
    service,
    tokens,
)
from pulumi_keystore.cli.output import fail, say
from pulumi_keystore.errors import KeystoreError

_USAGE: Final = 64
"""Exit status where the command line is wrong (sysexits(3), EX_USAGE)."""


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("pulumi-keystore"))
        raise typer.Exit


app = typer.Typer(
    help="Run and manage the keystores of a cloud backup service.\n\n"
    "KEYSTORE_URL sets the service's URL (default http://127.0.0.1:8700), KEYSTORE_TOKEN the API token, and "
    "KEYSTORE_CA_FILE the CA of the service's certificate.\n\n"
    "Exit status: 0 success, 1 an error or findings, 2 a keystore is offline, 64 wrong usage.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def keystore(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """See `app.info.help`."""


for module in (service, quickstart, doctor, check, keystores, registration, organizations):
    app.add_typer(module.commands)
for name, group in (
    ("organization", organizations.organization_app),
    ("key", keys.key_app),
    ("clean-up", clean_ups.clean_up_app),
    ("token", tokens.token_app),
    ("migration", migrations.migration_app),
    ("monitor", monitors.monitor_app),
):
    app.add_typer(group, name=name)


def _options() -> set[str]:
    """Return the options of the command that was typed."""
    command: Any = typer.main.get_command(app)
    for word in sys.argv[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    return {option for parameter in command.params for option in parameter.opts}


def main() -> NoReturn:
    """Run the command; expected errors are one line and exit status 1."""
    try:
        status = app(standalone_mode=False)
    except KeystoreError as error:
        fail(error, _options())
    except typer.TyperException as error:
        # Not click's 2, which is what is said of keystores that are offline.
        shown = StringIO()
        cast("Any", error).show(shown)
        say(shown.getvalue(), len("Error: "))
        status = _USAGE
    except typer.Abort:
        say("aborted")
        status = 1
    raise SystemExit(status)
