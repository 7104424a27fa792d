"""The `keystore` command: runs the service and asks it (thin; every decision is the service's)."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pulumi_keystore.client import Client
from pulumi_keystore.errors import KeystoreError, ServiceUnavailable

OFFLINE = 2
"""Exit status of `keystore status` where the keystore is offline; 1 is an error, 0 is fine."""


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


class HistoryFormat(StrEnum):
    """How a history is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


app = typer.Typer(
    help="Keystores of a cloud backup service: run the service, and look at organizations, migrations and history.\n\n"
    "The service is found by KEYSTORE_URL (http://127.0.0.1:8700 by default) and asked with the token in "
    "KEYSTORE_TOKEN; KEYSTORE_CA_FILE names the CA of its certificate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
organization_app = typer.Typer(help="The customers whose archive keys are kept.", no_args_is_help=True)
monitor_app = typer.Typer(help="Who is told when a keystore is offline.", no_args_is_help=True)
token_app = typer.Typer(help="API tokens and their roles.", no_args_is_help=True)
migration_app = typer.Typer(help="Moving all archive keys to another keystore.", no_args_is_help=True)
key_app = typer.Typer(help="Single archive keys: destroyed, or given up as lost.", no_args_is_help=True)
clean_up_app = typer.Typer(
    help="Keys that are still to be removed from the losing side of a migration.", no_args_is_help=True
)
app.add_typer(organization_app, name="organization")
app.add_typer(key_app, name="key")
app.add_typer(clean_up_app, name="clean-up")
app.add_typer(token_app, name="token")
app.add_typer(migration_app, name="migration")
app.add_typer(monitor_app, name="monitor")

OrganizationArgument = Annotated[str, typer.Argument(help="Name of the organization.", show_default=False)]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]
# Into a pipe lines are never wrapped: somebody will grep them.
_out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 1000)
_err = Console(stderr=True, soft_wrap=True, highlight=False)


def main() -> None:
    """Run the command; expected errors are one line and exit status 1."""
    try:
        app()
    except KeystoreError as error:
        _fail(error)


def _fail(error: KeystoreError) -> NoReturn:
    rule = f" [{error.rule}]" if error.rule else ""
    sys.stderr.write(f"error: {error.summary}{rule}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
    raise SystemExit(1)


def _service() -> Client:
    environment = os.environ.get
    return Client(environment("KEYSTORE_URL"), environment("KEYSTORE_TOKEN"), environment("KEYSTORE_CA_FILE"))


# The service.


@app.command()
def serve(
    data: Annotated[Path | None, typer.Option(help="Folder for the embedded database and the master key.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="PostgreSQL URL instead of the embedded one.", envvar="KEYSTORE_DATABASE_URL")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; loopback by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 8700 by default, 0 for a free one.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM certificate to serve HTTPS with.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.")] = None,
    host_map: Annotated[
        str | None, typer.Option(help="JSON object from public to dialled HOST:PORT, for tests and demos only.")
    ] = None,
    smtp_url: Annotated[
        str | None, typer.Option(help="smtp://HOST:PORT for mails.", envvar="KEYSTORE_SMTP_URL")
    ] = None,
) -> None:
    """Run the control plane service until Ctrl-C or SIGTERM.

    Every option, and some more, can be given in the environment as KEYSTORE_ and its name in capitals. Make the
    first token in another terminal: `keystore token create admin --role provider-admin --local`.
    """
    from pulumi_keystore.control_plane.processes import serve as run  # noqa: PLC0415 - other commands start faster

    given = {name: value for name, value in locals().items() if value is not None and name != "run"}
    run(_settings(given), lambda text: _err.print(text, markup=False))


@app.command()
def worker(
    database_url: Annotated[
        str | None, typer.Option(help="PostgreSQL URL of the service's database.", envvar="KEYSTORE_DATABASE_URL")
    ] = None,
    master_key_file: Annotated[
        Path | None, typer.Option(help="The service's master key.", envvar="KEYSTORE_MASTER_KEY_FILE")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="Organizations whose keys it moves at a time; 4 by default.")
    ] = None,
    host_map: Annotated[
        str | None, typer.Option(help="JSON object from public to dialled HOST:PORT, for tests and demos only.")
    ] = None,
) -> None:
    """Help a service with its migrations, from this machine, until Ctrl-C or SIGTERM.

    Any number of workers share the keys of running migrations with each other and with the service. One that dies is
    replaced; nothing is lost with it. It needs the service's database and master key, and must reach the keystores.
    """
    from pulumi_keystore.control_plane.processes import work  # noqa: PLC0415 - other commands start faster

    given = {name: value for name, value in locals().items() if value is not None and name != "work"}
    work(_settings(given), lambda text: _err.print(text, markup=False))


def _settings(given: dict[str, Any]) -> Any:
    from pulumi_keystore.control_plane.runtime.settings import Settings  # noqa: PLC0415 - as above

    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise KeystoreError(
            f"{name}: {first['msg']}",
            hint=f"set --{name.replace('_', '-')} or KEYSTORE_{name.upper()} to another value",
        ) from None


# Declarations.


class Report(StrEnum):
    """How findings are printed."""

    TABLE = "table"
    JSON = "json"
    JUNIT = "junit"
    SARIF = "sarif"


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="What to judge; - for standard input.", show_default=False)],
    output: Annotated[Report, typer.Option("--format", help="How to print what is found.")] = Report.TABLE,
    days: Annotated[int, typer.Option(help="Warn of client certificates that end within so many days.")] = 30,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail, too.")] = False,
) -> None:
    """Judge declarations by all rules and policies, without Pulumi and without a service.

    FILE is the output of `pulumi preview --json` or `pulumi stack export`, or YAML or JSON with the lists
    organizations, keystores, migrations and monitors, whose entries have the inputs of the resources; certificate is
    then the path of a PKCS#12 file, and certificate_password_env a variable of the environment.

    Exit status: 0 fine, 1 something is wrong (with --strict: or should be otherwise).
    """
    from pulumi_keystore.policy import declared, policies, report  # noqa: PLC0415 - other commands start faster

    shown = "standard input" if str(file) == "-" else str(file)
    given = declared.parse(sys.stdin.read(), Path(), shown) if str(file) == "-" else declared.read(file)
    findings = policies.check(given, policies.Settings(certificate_days=days))
    resources = [f"{one.kind} {one.name}" for one in given]
    if output is Report.JSON:
        sys.stdout.write(report.to_json(findings))
    elif output is Report.JUNIT:
        sys.stdout.write(report.to_junit(findings, resources))
    elif output is Report.SARIF:
        sys.stdout.write(report.to_sarif(findings, shown))
    else:
        for finding in findings:
            _out.print(f"{finding.level.value:<8}{finding.policy}  {finding.resource}: {finding.message}", markup=False)
            _out.print(f"{'':8}hint: {finding.remedy}", markup=False)
        counts = [f"{sum(one.level is level for one in findings)} {level}s" for level in policies.Level]
        _err.print(f"{len(resources)} declarations: {', '.join(counts)}", markup=False)
    bad = {policies.Level.ERROR, policies.Level.WARNING} if strict else {policies.Level.ERROR}
    if any(finding.level in bad for finding in findings):
        raise typer.Exit(1)


# Organizations.


@organization_app.command("create")
def organization_create(
    organization: OrganizationArgument,
    environment: Annotated[str, typer.Option(help="cloud or federal.")] = "cloud",
    output: FormatOption = Format.TABLE,
) -> None:
    """Create an organization; fine if it is there already."""
    with _service() as service:
        _show(service.put_organization(organization, environment), output)


@organization_app.command("list")
def organization_list(output: FormatOption = Format.TABLE) -> None:
    """List the organizations that your token may see."""
    with _service() as service:
        rows = service.request("GET", "organizations")
    _list(rows, ("name", "environment", "active_keystore", "archive_keys", "maintenance"), output)


@organization_app.command("show")
def organization_show(organization: OrganizationArgument, output: FormatOption = Format.TABLE) -> None:
    """Show one organization."""
    with _service() as service:
        _show(service.organization(organization), output)


@organization_app.command("delete")
def organization_delete(organization: OrganizationArgument) -> None:
    """Delete an organization that has no keystores and no keys."""
    with _service() as service:
        service.delete_organization(organization)


# Keystores.


@app.command("list")
def list_keystores(organization: OrganizationArgument, output: FormatOption = Format.TABLE) -> None:
    """List the keystores of an organization."""
    with _service() as service:
        rows = service.request("GET", "organizations", organization, "keystores")
    _list(rows, ("name", "kind", "active", "address_display", "certificate_not_after", "kv_version"), output)


@app.command("show")
def show_keystore(
    organization: OrganizationArgument,
    name: Annotated[str, typer.Argument(help="Name of the keystore.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one keystore."""
    with _service() as service:
        _show(service.keystore(organization, name), output)


@app.command()
def status(
    organization: OrganizationArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Go on and show each change, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="With --watch: seconds between two looks.", min=0.1)] = 5.0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the active keystore and test its connection now.

    For a self-administered keystore also what the tests of every minute say. With --watch a line (or with --format
    json a JSON document on a line of its own) is printed whenever something has changed.

    Exit status: 0 online, 1 error, 2 offline.
    """
    with _service() as service:
        if watch:
            _watch_status(service, organization, every, output)
        shown = service.request("GET", "organizations", organization, "status")
    if output is Format.JSON:
        _json(shown)
    else:
        active, connection = shown["keystore"], shown["connection"] or {}
        line = {
            "organization": shown["name"],
            "active keystore": f"{active['name']} ({active['kind']})" if active else "none",
            "address": active and active["address_display"],
            "connection": _connection(connection) or None,
            "detail": connection.get("detail"),
            **_health_lines(shown["health"]),
            "certificate until": active and active["certificate_not_after"] and _local(active["certificate_not_after"]),
            "archive keys": f"{shown['archive_keys']:,}",
            "verified": _verified(shown["verification"]),
            "suspended": shown["suspended"],
            "maintenance": _progress_line(shown["migration"]) if shown["migration"] else "no",
        }
        _pairs(line)
    if shown["connection"] and shown["connection"]["status"] != "Online":
        raise typer.Exit(OFFLINE)


def _verified(shown: dict[str, Any] | None) -> str | None:
    if shown is None:
        return None
    wrong = [f"{shown[kind]:,} {kind}" for kind in ("missing", "damaged", "surplus") if shown[kind]]
    return f"{_local(shown['at'])}: {', '.join(wrong) or 'every key is there'}"


def _watch_status(service: Client, organization: str, every: float, output: Format) -> NoReturn:
    told = ""
    while True:
        try:
            shown = service.request("GET", "organizations", organization, "status")
            line = _status_line(shown)
        except ServiceUnavailable as error:
            # A service that restarts is no reason to stop looking.
            shown, line = {"error": error.summary}, f"the service does not answer: {error.summary}"
        if line != told:
            told = line
            if output is Format.JSON:
                sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
                sys.stdout.flush()
            else:
                _out.print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}  {line}", markup=False)
        time.sleep(every)


def _status_line(shown: dict[str, Any]) -> str:
    if shown["migration"]:
        return f"in maintenance, {_progress_line(shown['migration'])}"
    connection, monitored = shown["connection"] or {"status": "no active keystore"}, shown["health"]
    parts = [_connection(connection)]
    if connection.get("detail"):
        parts.append(connection["detail"])
    if monitored:
        parts.append(f"each minute: {_connection(monitored)}")
    return ", ".join(parts)


def _connection(shown: dict[str, Any]) -> str:
    return " / ".join(filter(None, (shown.get("status"), shown.get("reason"))))


def _health_lines(monitored: dict[str, Any] | None) -> dict[str, Any]:
    if monitored is None:
        return {}
    share = monitored["reliability"]["share"]
    since = f" since {_local(monitored['since'])} ({_span(monitored['for_s'])})" if monitored["since"] else ""
    return {
        "each minute": f"{_connection(monitored)}{since}",
        "what it says": monitored["detail"],
        "warning": monitored["warning"],
        "reliability": f"{share:.1%} of the last hour" if share is not None else "not known yet",
    }


def _span(seconds: float) -> str:
    """Return a duration as people say it, as in "2 h 5 min"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if number]
    return " ".join(parts[:2]) or f"{seconds} s"


@app.command()
def reliability(
    organization: OrganizationArgument,
    keystore: Annotated[
        str | None, typer.Argument(help="Name of the keystore; the active one by default.", show_default=False)
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the last hour of a self-administered keystore: a bar for each minute, oldest first.

    A high bar is a minute online, a low one offline, a dot one in which no test was made.
    """
    with _service() as service:
        keystore = keystore or service.organization(organization)["active_keystore"]
        if keystore is None:
            raise KeystoreError(f"{organization!r} has no active keystore", hint="declare a Keystore first")
        shown = service.health(organization, keystore)
    if output is Format.JSON:
        _json(shown)
        return
    hour = shown["reliability"]
    begin = datetime.fromisoformat(hour["begin"]).astimezone()
    end = begin + timedelta(seconds=hour["bucket_s"] * len(hour["buckets"]))
    counts = {name: hour["buckets"].count(name) for name in ("online", "offline", "unknown")}
    _pairs({"keystore": f"{organization}/{keystore}", **_health_lines(shown)})
    bars = Text()
    for bucket in hour["buckets"]:
        bars.append(*_BARS[bucket])
    _out.print(bars)
    left, right = f"{begin:%H:%M}", f"{end:%H:%M}"
    _out.print(f"{left}{right:>{len(hour['buckets']) - len(left)}}", markup=False)
    _out.print(
        f"{counts['online']} minutes online, {counts['offline']} offline, {counts['unknown']} not tested", markup=False
    )


_BARS = {"online": ("█", "green"), "offline": ("▁", "red"), "unknown": ("·", "dim")}


@app.command()
def history(
    organization: OrganizationArgument,
    limit: Annotated[int, typer.Option(help="How many of the latest entries.")] = 100,
    output: Annotated[
        HistoryFormat, typer.Option("--format", help="How to print them; csv is the whole history, for a file.")
    ] = HistoryFormat.TABLE,
) -> None:
    """Show who did what when, oldest first."""
    with _service() as service:
        if output is HistoryFormat.CSV:
            sys.stdout.write(service.export_history(organization, "csv"))
            return
        rows = service.request("GET", "organizations", organization, "history", limit=limit)
    _list(rows, ("at", "actor", "action", "detail"), Format(output))


KeystoreArgument = Annotated[str, typer.Argument(help="Name of the keystore.", show_default=False)]

# When something has gone wrong.

ReasonOption = Annotated[str, typer.Option(help="Why, in one line; history keeps it.", show_default=False)]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


@app.command()
def verify(organization: OrganizationArgument, output: FormatOption = Format.TABLE) -> None:
    """Read every archive key at the active keystore and compare it with the ledger.

    Names the users whose key is missing or damaged, and archive keys that are not in the ledger.

    Exit status: 0 every key is there, 2 something is wrong, 1 an error.
    """
    with _service() as service:
        report = service.verify(organization)
    if output is Format.JSON:
        _json(report)
    else:
        _out.print(f"{report['keystore']}: {report['keys']:,} archive keys in the ledger", markup=False)
        for kind in ("missing", "damaged", "surplus"):
            found = report[kind]
            _out.print(f"{found['count']:,} {kind}" + (":" if found["count"] else ""), markup=False)
            for name in found["names"]:
                _out.print(f"  {name}", markup=False)
            if found["count"] > len(found["names"]):
                _out.print(f"  and {found['count'] - len(found['names']):,} more", markup=False)
        if report["given_up"]:
            _out.print(f"{report['given_up']:,} of the missing keys have been given up", markup=False)
    if not report["sound"]:
        raise typer.Exit(OFFLINE)


@app.command()
def recover(
    organization: OrganizationArgument,
    yes: YesOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Bring an organization back whose keystores know more than the database: it was lost, or restored from a backup.

    Reads every registered keystore and shows what would be taken over; after a confirmation the keystore that
    remembers the latest decision becomes the active one, and the archive keys there are taken into the ledger. Nothing
    is deleted.
    """
    with _service() as service:
        plan = service.plan_recovery(organization)
        if output is Format.TABLE:
            _show_recovery(plan)
        if not yes and not typer.confirm("Recover the organization as shown?", err=True):
            raise typer.Exit(1)
        done = service.recover(organization, plan["code"])
    if output is Format.JSON:
        _json(done)
    else:
        _out.print(f"recovered; check it with `keystore verify {organization}`", markup=False)


def _show_recovery(plan: dict[str, Any]) -> None:
    if plan["suspended"]:
        _out.print(f"suspended: {plan['suspended']}", markup=False)
    columns = ("keystore", "address", "readable", "epoch", "was_active", "remembered_at", "keys", "detail")
    _list(plan["sides"], columns, Format.TABLE)
    _out.print(f"{plan['keystore']} becomes the active keystore", markup=False)
    said = {
        "added": "are taken into the ledger",
        "replaced": "take the place of another key in the ledger",
        "gathered": "lie only at another keystore, and are written to the active one",
        "missing": "are in the ledger and were found nowhere",
    }
    for kind, text in said.items():
        users = plan[kind]
        named = ", ".join(users["names"]) + (", …" if users["count"] > len(users["names"]) else "")
        _out.print(f"{users['count']:,} keys {text}" + (f": {named}" if named else ""), markup=False)


@app.command("accept-cluster")
def accept_cluster(
    organization: OrganizationArgument,
    keystore: KeystoreArgument,
    yes: YesOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Accept the Vault cluster that answers under a keystore's name now: its server was rebuilt or replaced on purpose.

    The keystore is proved as if it were new, and where it is active it has to hold every archive key.
    """
    if not yes and not typer.confirm(f"Is another cluster on purpose what answers for {keystore}?", err=True):
        raise typer.Exit(1)
    with _service() as service:
        _show(service.accept_cluster(organization, keystore), output)


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
    with _service() as service:
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
    with _service() as service:
        _err.print(f"{service.give_up_keys(organization, user, reason):,} keys given up", markup=False)


_CLEAN_UP_COLUMNS = ("id", "keystore", "side", "state", "place", "attempts", "next_at", "detail")


@clean_up_app.command("list")
def clean_up_list(
    organization: OrganizationArgument,
    all_: Annotated[bool, typer.Option("--all", help="Show those that have ended, too.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """List the clean-ups that are pending, and why."""
    with _service() as service:
        _list(service.clean_ups(organization, ended=all_), _CLEAN_UP_COLUMNS, output)


@clean_up_app.command("retry")
def clean_up_retry(
    organization: OrganizationArgument,
    number: Annotated[int, typer.Argument(help="Number of the clean-up.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Try a clean-up now; the service tries it again by itself, too."""
    with _service() as service:
        _show(service.retry_clean_up(organization, number), output)


@clean_up_app.command("abandon")
def clean_up_abandon(
    organization: OrganizationArgument,
    number: Annotated[int, typer.Argument(help="Number of the clean-up.", show_default=False)],
    reason: ReasonOption,
    output: FormatOption = Format.TABLE,
) -> None:
    """Give a clean-up up, of a server that is gone for good, say: copies of keys may stay there."""
    with _service() as service:
        _show(service.abandon_clean_up(organization, number, reason), output)


# Health monitors.


@monitor_app.command("set")
def monitor_set(
    organization: OrganizationArgument,
    keystore: KeystoreArgument,
    recipient: Annotated[
        list[str] | None, typer.Option(help="E-mail address of an administrator; may be given again.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(help="https://HOST/PATH that is called, too.", envvar="KEYSTORE_WEBHOOK")
    ] = None,
    offline_minutes: Annotated[int, typer.Option(help="Minutes offline until they are told.")] = 5,
    repeat_hours: Annotated[int, typer.Option(help="Hours until they are told again.")] = 24,
    online_minutes: Annotated[int, typer.Option(help="Minutes online again until they are told.")] = 5,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say who is told when a self-administered keystore is offline; what was said before is replaced."""
    body = {
        "recipients": recipient or [],
        "webhook": webhook,
        "offline_minutes": offline_minutes,
        "repeat_hours": repeat_hours,
        "online_minutes": online_minutes,
    }
    with _service() as service:
        _show(service.put_monitor(organization, keystore, body), output)


@monitor_app.command("show")
def monitor_show(
    organization: OrganizationArgument, keystore: KeystoreArgument, output: FormatOption = Format.TABLE
) -> None:
    """Show who is told when a keystore is offline."""
    with _service() as service:
        _show(service.monitor(organization, keystore), output)


@monitor_app.command("remove")
def monitor_remove(organization: OrganizationArgument, keystore: KeystoreArgument) -> None:
    """Tell nobody any more; the tests go on."""
    with _service() as service:
        service.delete_monitor(organization, keystore)


# Migrations.


@migration_app.command("plan")
def migration_plan(
    organization: OrganizationArgument,
    destination: Annotated[str, typer.Argument(help="Keystore that shall become active.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what a migration would do; nothing is changed."""
    with _service() as service:
        _show(service.plan_migration(organization, destination), output)


@migration_app.command("start")
def migration_start(
    organization: OrganizationArgument,
    destination: Annotated[str, typer.Argument(help="Keystore that shall become active.", show_default=False)],
    notify: Annotated[str | None, typer.Option(help="E-mail address that gets the mails about it.")] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Let keys be enrolled meanwhile; they are held for a moment at the end.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Stay and show the progress.")] = True,
    output: FormatOption = Format.TABLE,
) -> None:
    """Move all archive keys to another keystore and make it the active one, or change nothing.

    Exit status: 0 succeeded (or started, with --no-watch), 1 failed.
    """
    with _service() as service:
        row = service.start_migration(organization, destination, notify, "online" if online else "maintenance")
        if row["id"] is None:
            _err.print(f"{destination} is the active keystore already; nothing has to move", markup=False)
            return
        if watch:
            _watch(service, organization, row["id"], output)
        else:
            _show(row, output)


@migration_app.command("list")
def migration_list(organization: OrganizationArgument, output: FormatOption = Format.TABLE) -> None:
    """List the migrations of an organization, the latest first."""
    with _service() as service:
        rows = service.migrations(organization)
    _list(rows, ("started_at", "source", "destination", "state", "done", "total", "rate", "ending", "id"), output)


@migration_app.command("watch")
def migration_watch(
    organization: OrganizationArgument,
    migration: Annotated[str | None, typer.Argument(help="Its id; the latest by default.", show_default=False)] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the progress of a migration until it ends; Ctrl-C leaves it running.

    Exit status: 0 succeeded, 1 failed.
    """
    with _service() as service:
        _watch(service, organization, migration or _latest(service, organization), output)


@migration_app.command("cancel")
def migration_cancel(
    organization: OrganizationArgument,
    migration: Annotated[str | None, typer.Argument(help="Its id; the latest by default.", show_default=False)] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """End a migration where it is: every key stays in the keystore it came from, and the other is emptied.

    Exit status: 0 canceled, 1 it had ended already, or was decided first.
    """
    with _service() as service:
        migration = migration or _latest(service, organization)
        row = service.cancel_migration(organization, migration)
        while row["state"] == "running":
            time.sleep(0.2)
            row = service.migration(organization, migration)
    _show(row, output)
    if row["state"] == "succeeded":
        raise KeystoreError(f"the migration {migration} had been decided", hint="to move back, start another one")


@migration_app.command("undo")
def migration_undo(
    organization: OrganizationArgument,
    migration: Annotated[str | None, typer.Argument(help="Its id; the latest by default.", show_default=False)] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Make the keystore active again that the latest migration came from, as long as its keys are retained there.

    The service's setting KEYSTORE_RETAIN_S says for how long; by default the source is emptied at once. Keys that were
    enrolled since are copied back first.
    """
    with _service() as service:
        _show(service.undo_migration(organization, migration or _latest(service, organization)), output)


def _latest(service: Client, organization: str) -> str:
    rows = service.migrations(organization)
    if not rows:
        raise KeystoreError(f"{organization!r} has had no migration", hint="start one, or run `pulumi up`")
    return str(rows[0]["id"])


def _watch(service: Client, organization: str, migration: str, output: Format) -> None:
    row = service.migration(organization, migration)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeElapsedColumn(), console=_err, disable=not _err.is_terminal) as progress:
        task = progress.add_task(row["phase"], total=row["total"], rate="")
        told = ""
        while True:
            rate = f"{row['rate']:,.0f} keys/s" if row["rate"] else ""
            progress.update(task, description=row["phase"], completed=_moved(row), rate=rate)
            line = _progress_line(row)
            if not _err.is_terminal and line != told:
                _err.print(line, markup=False)
                told = line
            if row["state"] != "running" and row["phase"] == "ended":
                break
            time.sleep(0.5)
            row = service.migration(organization, migration)
    if output is Format.JSON:
        _json(row)
    else:
        _out.print(row["ending"] + (f": {row['detail']}" if row["detail"] else ""), markup=False)
    if row["state"] != "succeeded":
        raise typer.Exit(1)


def _moved(row: dict[str, Any]) -> int:
    return int(row["verified"] if row["phase"] == "verify" else row["done"])


def _progress_line(row: dict[str, Any]) -> str:
    parts = [f"{row['phase']}: {_moved(row):,} of {row['total']:,} keys"]
    if row["rate"]:
        parts.append(f"{row['rate']:,.0f} keys/s")
    if row["remaining_s"]:
        parts.append(f"{row['remaining_s']:,.0f} s left")
    return ", ".join(parts)


# Tokens.


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
        with _service() as service:
            text = service.request("POST", "tokens", body=body)["token"]
    sys.stdout.write(text + "\n")


@token_app.command("list")
def token_list(output: FormatOption = Format.TABLE) -> None:
    """List all tokens; their secrets are not kept anywhere."""
    with _service() as service:
        rows = service.request("GET", "tokens")
    _list(rows, ("id", "name", "role", "organization", "created_at", "expires_at", "revoked_at"), output)


@token_app.command("revoke")
def token_revoke(token_id: Annotated[str, typer.Argument(help="Id of the token.", show_default=False)]) -> None:
    """End a token at once."""
    with _service() as service:
        service.request("DELETE", "tokens", token_id)


# Printing.


def _json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _show(row: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        _json(row)
    else:
        _pairs({name.replace("_", " "): value for name, value in row.items() if value not in (None, [])})


def _pairs(values: dict[str, Any]) -> None:
    width = max(len(name) for name in values)
    for name, value in values.items():
        if value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else _text(name, value)
            _out.print(f"{name:<{width}}  {text}", markup=False)


def _list(rows: list[dict[str, Any]], columns: tuple[str, ...], output: Format) -> None:
    if output is Format.JSON:
        _json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " ").upper(), overflow="fold")
    for row in rows:
        table.add_row(*(_text(column, row[column]) for column in columns))
    if rows:
        _out.print(table, markup=False, soft_wrap=False)
    else:
        _err.print("nothing to show", markup=False)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.replace(" ", "_").endswith(("_at", "_after")) or name == "at":
        return _local(str(value))
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _local(stamp: str) -> str:
    """Return a UTC time stamp in the reader's zone."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
