"""`keystore token …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pulumi_keystore.cli.output import Format, FormatOption, ask, print_rows
from pulumi_keystore.cli.service import _settings

token_app = typer.Typer(help="API tokens and their roles.", no_args_is_help=True)


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="Who will use it; shown in the history.", show_default=False)],
    role: Annotated[
        str, typer.Option(help="provider-admin, customer-cloud-admin, authority or viewer.", show_default=False)
    ],
    organization: Annotated[str | None, typer.Option(help="The one organization it is for; all if left out.")] = None,
    days: Annotated[int | None, typer.Option(help="Days until it expires; never if left out.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Write to the database directly: the way to the first token.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="With --local: the service's data folder.")] = None,
) -> None:
    """Make a token and print it; it is shown this once."""
    if local:
        from pulumi_keystore.control_plane.identity import tokens  # noqa: PLC0415 - other commands start faster
        from pulumi_keystore.control_plane.runtime.opening import opened  # noqa: PLC0415

        with opened(_settings({"data": data} if data else {})) as database, database.plane.transaction() as session:
            _, text = tokens.create(session, name, role, organization, days)
    else:
        body = {"name": name, "role": role, "organization": organization, "days": days}
        with ask() as service:
            text = service.request("POST", "tokens", body=body)["token"]
    sys.stdout.write(text + "\n")


@token_app.command("list")
def token_list(output: FormatOption = Format.TABLE) -> None:
    """List all tokens; their secrets are not kept anywhere."""
    with ask() as service:
        rows = service.request("GET", "tokens")
    print_rows(rows, ("id", "name", "role", "organization", "created_at", "expires_at", "revoked_at"), output)


@token_app.command("revoke")
def token_revoke(token_id: Annotated[str, typer.Argument(help="Id of the token.", show_default=False)]) -> None:
    """End a token at once."""
    with ask() as service:
        service.request("DELETE", "tokens", token_id)
