"""`keystore token …`."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from pulumi_keystore.answers import TokenAnswer
from pulumi_keystore.cli.output import Columns, Format, FormatOption, age, ask, print_rows
from pulumi_keystore.cli.service import importing_service, settings_of
from pulumi_keystore.clock import now_utc


def _until(row: TokenAnswer) -> str | None:
    """Return until when a token is valid, or what it is instead."""
    if row["revoked_at"]:
        return "revoked"
    if row["expires_at"] and datetime.fromisoformat(row["expires_at"]) <= now_utc():
        return "expired"
    return age(row["expires_at"]) or "never"


_COLUMNS: Final[Columns] = {
    "id": "id",
    "name": "name",
    "role": "role",
    "organization": "organization",
    "expires": _until,
}


token_app = typer.Typer(help="Manage API tokens.", no_args_is_help=True)


@token_app.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="Name of the token's user, as shown in the history.", show_default=False)],
    role: Annotated[
        str, typer.Option(help="Role: provider-admin, customer-cloud-admin, authority or viewer.", show_default=False)
    ],
    organization: Annotated[str | None, typer.Option(help="Limit the token to one organization.")] = None,
    days: Annotated[int | None, typer.Option(help="Days until the token expires; never by default.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Write to the service's database directly, to create the first token.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="With --local: the service's data folder.")] = None,
) -> None:
    """Create a token and print it. It is not shown again."""
    if local:
        with importing_service():
            from pulumi_keystore.control_plane.identity import tokens  # noqa: PLC0415
            from pulumi_keystore.control_plane.runtime.opening import opened  # noqa: PLC0415

        with opened(settings_of({"data": data} if data else {})) as database, database.plane.transaction() as session:
            _, text = tokens.create(session, "keystore token create --local", name, role, organization, days)
    else:
        body = {"name": name, "role": role, "organization": organization, "days": days}
        with ask() as service:
            text = service.request("POST", "tokens", body=body)["token"]
    sys.stdout.write(text + "\n")


@token_app.command("list")
def token_list(output: FormatOption = Format.TABLE) -> None:
    """List all tokens, without their secrets."""
    with ask() as service:
        rows = service.tokens()
    print_rows(rows, _COLUMNS, output)


@token_app.command("revoke")
def token_revoke(token_id: Annotated[str, typer.Argument(help="Token id.", show_default=False)]) -> None:
    """Revoke a token immediately."""
    with ask() as service:
        service.request("DELETE", "tokens", token_id)
