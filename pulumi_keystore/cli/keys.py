"""`keystore key …`: single archive keys are destroyed, or given up."""

from __future__ import annotations

from typing import Annotated

import typer

from pulumi_keystore.cli.output import OrganizationArgument, ReasonOption, YesOption, ask, err
from pulumi_keystore.errors import KeystoreError

key_app = typer.Typer(help="Single archive keys: destroyed, or given up as lost.", no_args_is_help=True)


@key_app.command("destroy")
def key_destroy(
    organization: OrganizationArgument,
    user: Annotated[str, typer.Argument(help="User id.", show_default=False)],
    reason: ReasonOption,
    yes: YesOption = False,
) -> None:
    """Take a user's archive key out of escrow for good: at the keystore, then in the ledger.

    What was backed up with it can then be restored only by a device that still has the key.
    """
    if not yes and typer.prompt("This cannot be undone. Type the user id to go on", err=True) != user:
        raise KeystoreError("that is not the user id; nothing was destroyed")
    with ask() as service:
        service.destroy_key(organization, user, reason)


@key_app.command("give-up")
def key_give_up(
    organization: OrganizationArgument,
    user: Annotated[list[str], typer.Argument(help="User ids.", show_default=False)],
    reason: ReasonOption,
    yes: YesOption = False,
) -> None:
    """Note that users' keys are lost: edits and migrations are not refused because they are missing.

    Nothing is deleted. A key that is there after all moves like any other; a device may enrol its key again, or a new
    one. `keystore verify` names the users whose key is missing.
    """
    if not yes and not typer.confirm(f"Give up the archive keys of {len(user)} users?", err=True):
        raise typer.Exit(1)
    with ask() as service:
        err.print(f"{service.give_up_keys(organization, user, reason):,} keys given up", markup=False)
