"""`keystore serve` and `keystore worker`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pulumi_keystore.cli.output import ask, say, without_password
from pulumi_keystore.errors import KeystoreError

if TYPE_CHECKING:
    from pulumi_keystore.control_plane.runtime.settings import Settings

commands = typer.Typer()


@commands.command()
def serve(
    data: Annotated[Path | None, typer.Option(help="Folder of the embedded database and the master key.")] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="URL of a PostgreSQL database instead of the embedded one; with a password, only as a variable.",
            envvar="KEYSTORE_DATABASE_URL",
            callback=without_password,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; defaults to loopback.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; defaults to 8700, 0 picks a free one.", min=0, max=65535)
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file with the certificate for HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's key.")] = None,
    host_map: Annotated[
        str | None, typer.Option(help="JSON object that maps public to real HOST:PORT; for tests and demos only.")
    ] = None,
    smtp_url: Annotated[
        str | None,
        typer.Option(
            help="SMTP server for alerts and notices, smtp://HOST:PORT; with a password, only as a variable.",
            envvar="KEYSTORE_SMTP_URL",
            callback=without_password,
        ),
    ] = None,
) -> None:
    """Run the control plane service until Ctrl-C or SIGTERM.

    Every option can also be set in the environment as KEYSTORE_ followed by its name in capitals. Create the first
    token in another terminal: `keystore token create admin --role provider-admin --local`.
    """
    with importing_service():
        from pulumi_keystore.control_plane.processes import serve as run  # noqa: PLC0415

    given = {name: value for name, value in locals().items() if value is not None and name != "run"}
    run(settings_of(given), say)


@commands.command()
def worker(
    database_url: Annotated[
        str | None,
        typer.Option(
            help="PostgreSQL URL of the service's database; with a password, only as a variable.",
            envvar="KEYSTORE_DATABASE_URL",
            callback=without_password,
        ),
    ] = None,
    master_key_file: Annotated[
        Path | None, typer.Option(help="File with the service's master key.", envvar="KEYSTORE_MASTER_KEY_FILE")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Number of organizations to move at a time; defaults to 4.")] = None,
    host_map: Annotated[
        str | None, typer.Option(help="JSON object that maps public to real HOST:PORT; for tests and demos only.")
    ] = None,
) -> None:
    """Run migrations and health checks for a service until Ctrl-C or SIGTERM.

    Workers share the keys of running migrations with each other and with the service; if one dies, another takes over
    and nothing is lost. A worker needs the service's database and master key, and must be able to reach the keystores.
    """
    with importing_service():
        from pulumi_keystore.control_plane.processes import work  # noqa: PLC0415

    given = {name: value for name, value in locals().items() if value is not None and name != "work"}
    work(settings_of(given), say)


@commands.command("test-mail")
def test_mail(recipient: Annotated[str, typer.Argument(help="E-mail address.", show_default=False)]) -> None:
    """Have the service send a mail now, to see whether its mail settings are right."""
    with ask() as service:
        service.request("POST", "test-mail", body={"recipient": recipient})
    say(f"the mail server has accepted a mail to {recipient}")


@contextmanager
def importing_service() -> Iterator[None]:
    """Import what serves; other commands start faster, and are installed, without.

    Raises:
        KeystoreError: It is not installed.

    """
    # The garbage collector finds nothing in what stays for good, and takes a fifth of the start.
    gc.disable()
    try:
        yield
    except ModuleNotFoundError as missing:
        raise KeystoreError(
            f"this command needs what the service needs, which is not installed ({missing.name} is missing)",
            hint="run `pip install 'pulumi-keystore[server]'`, or in a checkout `pip install '.[server]'`",
        ) from None
    finally:
        gc.freeze()
        gc.enable()


def settings_of(given: dict[str, Any]) -> Settings:
    """Return the settings of the environment, with what was given as options.

    Raises:
        KeystoreError: One is unusable; it says which.

    """
    with importing_service():
        from pydantic import ValidationError  # noqa: PLC0415

        from pulumi_keystore.control_plane.runtime.settings import Settings  # noqa: PLC0415

    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise KeystoreError(
            f"{name}: {first['msg']}",
            hint=f"set --{name.replace('_', '-')} or KEYSTORE_{name.upper()} to another value",
        ) from None
