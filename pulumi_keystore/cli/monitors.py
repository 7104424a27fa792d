"""`keystore monitor …`: who is alerted."""

from __future__ import annotations

from typing import Annotated

import typer

from pulumi_keystore.cli.output import (
    Columns,
    Format,
    FormatOption,
    KeystoreArgument,
    OrganizationArgument,
    ask,
    print_rows,
    show,
)
from pulumi_keystore.declarations.monitor import OFFLINE_MINUTES, ONLINE_MINUTES, REPEAT_HOURS, WebhookFormat

_LONGEST_URL = 10_000
monitor_app = typer.Typer(help="Alert recipients of a keystore.", no_args_is_help=True)


@monitor_app.command("set")
def monitor_set(
    organization: OrganizationArgument,
    keystore: KeystoreArgument,
    recipient: Annotated[list[str] | None, typer.Option(help="Email address to alert; repeatable.")] = None,
    webhook_file: Annotated[
        typer.FileText | None,
        typer.Option(help="File with the webhook URL to call, https://HOST/PATH; - reads it from standard input."),
    ] = None,
    webhook_format: Annotated[
        WebhookFormat, typer.Option(help="What to call it with; PagerDuty's URL ends in ?routing_key=KEY.")
    ] = WebhookFormat.JSON,
    offline_minutes: Annotated[int, typer.Option(help="Minutes offline before the first alert.")] = OFFLINE_MINUTES,
    repeat_hours: Annotated[int, typer.Option(help="Hours between reminders.")] = REPEAT_HOURS,
    online_minutes: Annotated[int, typer.Option(help="Minutes online before the recovery notice.")] = ONLINE_MINUTES,
    output: FormatOption = Format.TABLE,
) -> None:
    """Set the alert recipients and timings of a self-administered keystore, replacing earlier ones."""
    body = {
        "recipients": recipient or [],
        # Such a URL is a secret of its own, which a command line would show to everybody on the machine.
        "webhook": webhook_file.read(_LONGEST_URL).strip() if webhook_file else None,
        "webhook_format": webhook_format,
        "offline_minutes": offline_minutes,
        "repeat_hours": repeat_hours,
        "online_minutes": online_minutes,
    }
    with ask() as service:
        show(service.put_monitor(organization, keystore, body), output)


@monitor_app.command("show")
def monitor_show(
    organization: OrganizationArgument, keystore: KeystoreArgument, output: FormatOption = Format.TABLE
) -> None:
    """Show the alert recipients and timings of a keystore."""
    with ask() as service:
        show(service.monitor(organization, keystore), output)


@monitor_app.command("test")
def monitor_test(
    organization: OrganizationArgument, keystore: KeystoreArgument, output: FormatOption = Format.TABLE
) -> None:
    """Send a test to every recipient and the webhook now; exits with 1 if one does not accept it."""
    with ask() as service:
        answers = service.test_monitor(organization, keystore)
    columns: Columns = {
        "receiver": "receiver",
        "answer": lambda row: "accepted" if row["accepted"] else f"not accepted: {row['detail']}",
    }
    print_rows(answers, columns, output)
    if not all(answer["accepted"] for answer in answers):
        raise typer.Exit(1)


@monitor_app.command("remove")
def monitor_remove(organization: OrganizationArgument, keystore: KeystoreArgument) -> None:
    """Remove the monitor. Health checks continue."""
    with ask() as service:
        service.delete_monitor(organization, keystore)
