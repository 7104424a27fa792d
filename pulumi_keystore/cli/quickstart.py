"""`keystore quickstart`: everything there is, on this machine, to try it."""

from __future__ import annotations

import signal
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from pulumi_keystore.cli.output import out, say
from pulumi_keystore.errors import KeystoreError

commands = typer.Typer()


@commands.command()
def quickstart(
    folder: Annotated[Path, typer.Argument(help="Folder to create for the Pulumi program.")] = Path("quickstart"),
) -> None:
    """Start two Vault servers and a service on this machine, with a Pulumi program to try them with.

    It needs the package keystore-harness, which starts real servers, and Pulumi. Everything goes when it is stopped.
    """
    if find_spec("keystore_harness") is None:
        raise KeystoreError(
            "the package keystore-harness is not installed",
            hint="install it from the checkout: pip install './harness[openbao]'",
        )
    from keystore_harness.errors import HarnessError  # noqa: PLC0415 - an optional package
    from keystore_harness.quickstart import landscape  # noqa: PLC0415

    # However it is told to stop, servers and folder have to go.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    say("starting two Vault servers and the service ...")
    try:
        with suppress(KeyboardInterrupt), landscape(folder.absolute()) as what_next:
            out.print(what_next, markup=False)
            signal.pause()
    except HarnessError as error:
        raise KeystoreError(str(error)) from None
    say("stopped; everything is removed")
