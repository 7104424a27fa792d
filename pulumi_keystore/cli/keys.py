"""`keystore key …`: destroy single archive keys, or give them up as lost."""

from __future__ import annotations

from typing import Annotated

import typer

from pulumi_keystore.cli.output import OrganizationArgument, ReasonOption, YesOption, ask, say
from pulumi_keystore.counting import count
from pulumi_keystore.errors import KeystoreError

key_app = typer.Typer(help="Destroy single archive keys, or give them up as lost.", no_args_is_help=True)


@key_app.command("destroy")
def key_destroy(
    organization: OrganizationArgument,
    user: Annotated[str, typer.Argument(help="User id.", show_default=False)],
    reason: ReasonOption,
    yes: YesOption = False,
) -> None:
    """Permanently destroy a user's archive key, first in the keystore and then in the ledger.

    Backups made with the key can then be restored only on a device that still has it.
    """
    if not yes and typer.prompt("This cannot be undone. Type the user id to continue", err=True) != user:
        raise KeystoreError("the user id does not match; nothing was destroyed")
    with ask() as service:
        service.destroy_key(organization, user, reason)


@key_app.command("give-up")
def key_give_up(
    organization: OrganizationArgument,
    user: Annotated[list[str], typer.Argument(help="User ids.", show_default=False)],
    reason: ReasonOption,
    yes: YesOption = False,
) -> None:
    """Record that users' keys are lost, so that they no longer block edits and migrations.

    Nothing is deleted: a key that turns up later moves like any other, and a device can enrol its key again or a new
    one. `keystore verify` lists the users whose key is missing.
    """
    if not yes and not typer.confirm(f"Give up the archive keys of {count(len(user), 'user')}?", err=True):
        raise typer.Exit(1)
    with ask() as service:
        say(f"{count(service.give_up_keys(organization, user, reason), 'key')} given up")
