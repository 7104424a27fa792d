"""Keystores: list, show, status, reliability, incidents, verify, recover, accept-cluster."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.text import Text

from pulumi_keystore.answers import (
    ConnectionAnswer,
    HealthAnswer,
    KeystoreAnswer,
    RecoveryAnswer,
    StatusAnswer,
    VerificationAnswer,
)
from pulumi_keystore.cli.migrations import progress_line
from pulumi_keystore.cli.output import (
    Columns,
    Format,
    FormatOption,
    KeystoreArgument,
    OrganizationArgument,
    YesOption,
    age,
    ask,
    local_minute,
    local_time,
    out,
    pairs,
    print_below,
    print_json,
    print_rows,
    say_older,
    show,
    span,
    wrapped,
)
from pulumi_keystore.client import Client
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.monitor import Period
from pulumi_keystore.errors import KeystoreError, ServiceUnavailable

commands = typer.Typer()
_COLUMNS: Final[Columns] = {
    "name": "name",
    "kind": "kind",
    "active": "active",
    "address": "address_display",
    "expires": lambda row: age(row["certificate_not_after"]),
}
_REMEMBERED: Final[Columns] = {
    "keystore": "keystore",
    "readable": "readable",
    "keys": "keys",
    "decision": "epoch",
    "of": lambda side: local_minute(side["remembered_at"]),
    "was active": "was_active",
}
OFFLINE = 2
"""Exit status of `keystore status` where the keystore is offline; 1 is an error, 0 is fine."""


@commands.command("list")
def list_keystores(organization: OrganizationArgument, output: FormatOption = Format.TABLE) -> None:
    """List the keystores of an organization."""
    with ask() as service:
        rows = service.keystores(organization)
    print_rows(rows, _COLUMNS, output)


@commands.command("show")
def show_keystore(
    organization: OrganizationArgument,
    name: Annotated[str, typer.Argument(help="Name of the keystore.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one keystore."""
    with ask() as service:
        show_one(service.keystore(organization, name), output)


def show_one(found: KeystoreAnswer, output: Format) -> None:
    """Print one keystore."""
    if output is Format.JSON:
        show(found, output)
        return
    shown: dict[str, Any] = {**found, "organization": None, "address_display": None}
    shown["address"] = found["address_display"]
    if found["mount"] is not None:
        shown["namespace"] = found["namespace"] or "root"
    if found["server_ca"]:
        # It takes a page, and people seldom read it.
        shown["server_ca"] = f"{found['server_ca'].count('-----BEGIN')} in PEM (--format json shows it)"
    show(shown, output)


@commands.command()
def status(
    organization: OrganizationArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Keep running and show each change until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="With --watch: seconds between checks.", min=0.1)] = 5.0,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the active keystore and test its connection.

    For a self-administered keystore, also show the latest health check. With --watch, print a line for each change
    (with --format json, a JSON document per line).

    Exit status: 0 online, 1 error, 2 offline.
    """
    with ask() as service:
        if watch:
            _watch_status(service, organization, every, output)
        shown = service.status(organization)
    if output is Format.JSON:
        print_json(shown)
    else:
        active, connection = shown["keystore"], shown["connection"]
        line = {
            "organization": shown["name"],
            "active keystore": f"{active['name']} ({active['kind']})" if active else "none",
            "address": active and active["address_display"],
            "connection": _connection(connection) or None,
            "detail": connection and connection["detail"],
            **_health_lines(shown["health"]),
            "certificate until": active
            and active["certificate_not_after"]
            and local_time(active["certificate_not_after"]),
            "archive keys": f"{shown['archive_keys']:,}",
            "verified": _verified(shown["verification"]),
            "suspended": shown["suspended"],
            "maintenance": progress_line(shown["migration"]) if shown["migration"] else "no",
        }
        pairs(line)
        for number, step in enumerate(connection["steps"] if connection else (), 1):
            out.print(wrapped(f"{number}. {step}", 3), markup=False)
    if shown["connection"] and shown["connection"]["status"] != "Online":
        raise typer.Exit(OFFLINE)


def _verified(shown: VerificationAnswer | None) -> str | None:
    if shown is None:
        return None
    counts = {"missing": shown["missing"], "damaged": shown["damaged"], "surplus": shown["surplus"]}
    wrong = [f"{count:,} {kind}" for kind, count in counts.items() if count]
    return f"{local_time(shown['at'])}: {', '.join(wrong) or 'every key is there'}"


def _watch_status(service: Client, organization: str, every: float, output: Format) -> NoReturn:
    told = ""
    while True:
        try:
            status = service.status(organization)
            shown, line = dict(status), _status_line(status)
        except ServiceUnavailable as error:
            # A service that restarts is no reason to stop looking.
            shown, line = {"error": error.summary}, f"the service does not answer: {error.summary}"
        if line != told:
            told = line
            if output is Format.JSON:
                sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
                sys.stdout.flush()
            else:
                out.print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}  {line}", markup=False)
        time.sleep(every)


def _status_line(shown: StatusAnswer) -> str:
    if shown["migration"]:
        return f"in maintenance, {progress_line(shown['migration'])}"
    connection, monitored = shown["connection"], shown["health"]
    parts = [_connection(connection) or "no active keystore"]
    if connection and connection["detail"]:
        parts.append(connection["detail"])
    if monitored:
        parts.append(f"each minute: {_connection(monitored)}")
    return ", ".join(parts)


def _connection(shown: ConnectionAnswer | HealthAnswer | None) -> str:
    return " / ".join(filter(None, (shown["status"], shown["reason"]))) if shown else ""


_SPANS: Final = {"hour": "hour", "day": "24 hours", "month": "30 days"}


def _health_lines(monitored: HealthAnswer | None) -> dict[str, Any]:
    if monitored is None:
        return {}
    past, shown_until = monitored["reliability"], monitored["server_certificate_not_after"]
    ratio = past["ratio"]
    since = f" since {local_time(monitored['since'])}" if monitored["since"] else ""
    return {
        "each minute": f"{_connection(monitored)}{since}",
        "last tested": monitored["tested_at"] and local_time(monitored["tested_at"]),
        "what it says": monitored["detail"],
        "warning": monitored["warning"],
        "server certificate until": shown_until and local_time(shown_until),
        "reliability": f"{ratio:.1%} of the last {_SPANS[past['period']]}" if ratio is not None else "not known yet",
    }


KeystoreOrActive = Annotated[
    str | None, typer.Argument(help="Name of the keystore; defaults to the active one.", show_default=False)
]
_BARS: Final = {"online": ("█", "green"), "partly": ("▄", "yellow"), "offline": ("▁", "red"), "unknown": ("·", "dim")}
_WHAT: Final = {
    Period.HOUR: ("minute", "", "offline", 60),
    Period.DAY: ("quarter", " of an hour", "not always", 48),
    Period.MONTH: ("quarter", " of a day", "not always", 60),
}
"""What a bar stands for, what one is that was not online throughout, and how many bars a line has."""


@commands.command()
def reliability(
    organization: OrganizationArgument,
    keystore: KeystoreOrActive = None,
    period: Annotated[Period, typer.Option(help="60 minutes, 24 hours, or 30 days.")] = Period.HOUR,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the last hour, day or month of a self-administered keystore, a bar for each stretch of time, oldest first.

    A high bar stands for a minute (a quarter of an hour; six hours) online, a low bar for one offline, a middle one
    for one that was partly offline, and a dot for one without a health check.
    """
    with ask() as service:
        keystore = keystore or _active(service, organization)
        shown = service.health(organization, keystore, period)
    if output is Format.JSON:
        print_json(shown)
        return
    past = shown["reliability"]
    begin = datetime.fromisoformat(past["begin"]).astimezone()
    noun, of_what, otherwise, in_a_line = _WHAT[period]
    pairs({"keystore": f"{organization}/{keystore}", **_health_lines(shown)})
    for first in range(0, len(past["buckets"]), in_a_line):
        bars = Text()
        for bucket in past["buckets"][first : first + in_a_line]:
            bars.append(*_BARS[bucket])
        out.print(bars)
        left, right = (
            f"{begin + timedelta(seconds=past['bucket_s'] * number):{'%b %d' if period is Period.MONTH else '%H:%M'}}"
            for number in (first, first + in_a_line)
        )
        out.print(f"{left}{right:>{in_a_line - len(left)}}", markup=False)
    online, unknown = (past["buckets"].count(name) for name in ("online", "unknown"))
    rest = len(past["buckets"]) - online - unknown
    out.print(f"{count(online, noun)}{of_what} online, {rest:,} {otherwise}, {unknown:,} not tested", markup=False)


@commands.command()
def incidents(
    organization: OrganizationArgument,
    keystore: KeystoreOrActive = None,
    limit: Annotated[int, typer.Option(help="Maximum number of incidents, newest first.", min=1)] = 20,
    before: Annotated[int | None, typer.Option(help="Only incidents before the one with this id.", min=1)] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List the times in which a self-administered keystore was offline, newest first. They are kept for 90 days.

    `alerts` is how often the recipients were alerted, the recovery notice included.
    """
    with ask() as service:
        rows = service.incidents(organization, keystore or _active(service, organization), limit + 1, before)
    print_rows(rows[:limit], _INCIDENTS, output)
    if len(rows) > limit:
        say_older(rows[limit - 1]["id"])


_INCIDENTS: Final[Columns] = {
    "began": lambda row: local_minute(row["begun_at"]),
    "ended": lambda row: age(row["ended_at"]) or "not yet",
    "lasted": lambda row: span(row["duration_s"]) if row["ended_at"] else f"{span(row['duration_s'])} so far",
    "reason": "reason",
    "cause": lambda row: (row["cause"] or "").replace("-", " "),
    "alerts": "alerts",
}


def _active(service: Client, organization: str) -> str:
    """Return the name of the keystore in use.

    Raises:
        KeystoreError: There is none.

    """
    active = service.organization(organization)["active_keystore"]
    if active is None:
        raise KeystoreError(f"{organization!r} has no active keystore", hint="declare a Keystore first")
    return str(active)


@commands.command()
def verify(organization: OrganizationArgument, output: FormatOption = Format.TABLE) -> None:
    """Read every archive key in the active keystore and compare it with the ledger.

    Lists users whose key is missing or damaged, and archive keys that are not in the ledger.

    Exit status: 0 all keys are sound, 1 error, 2 some keys are not.
    """
    with ask() as service:
        report = service.verify(organization)
    if output is Format.JSON:
        print_json(report)
    else:
        out.print(f"{report['keystore']}: {count(report['keys'], 'archive key')} in the ledger", markup=False)
        for kind, found in (
            ("missing", report["missing"]),
            ("damaged", report["damaged"]),
            ("surplus", report["surplus"]),
        ):
            out.print(f"{found['count']:,} {kind}" + (":" if found["count"] else ""), markup=False)
            for name in found["names"]:
                out.print(f"  {name}", markup=False)
            if found["count"] > len(found["names"]):
                out.print(f"  and {found['count'] - len(found['names']):,} more", markup=False)
        if report["given_up"]:
            out.print(f"{report['given_up']:,} of the missing keys have been given up", markup=False)
    if not report["sound"]:
        raise typer.Exit(OFFLINE)


@commands.command()
def recover(
    organization: OrganizationArgument,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave out a keystore whose server is gone for good; repeatable.")
    ] = None,
    yes: YesOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Recover an organization after the database was lost or restored from a backup.

    Reads every registered keystore and shows the plan. After confirmation, the keystore with the latest recorded
    decision becomes active, and its archive keys are added to the ledger. Nothing is deleted. A keystore that cannot
    be read stops the recovery, because it may be the one that holds the keys, unless --without names it.
    """
    with ask() as service:
        plan = service.plan_recovery(organization, without or ())
        if output is Format.TABLE:
            _show_recovery(plan)
        if not plan["unread"] and not yes and not typer.confirm("Recover the organization as shown?", err=True):
            raise typer.Exit(1)
        done = service.recover(organization, plan["code"], without or ())
    if output is Format.JSON:
        print_json(done)
    else:
        out.print(f"recovered; check it with `keystore verify {organization}`", markup=False)


def _show_recovery(plan: RecoveryAnswer) -> None:
    if plan["suspended"]:
        out.print(f"suspended: {plan['suspended']}", markup=False)
    print_rows(plan["sides"], _REMEMBERED, Format.TABLE)
    for side in plan["sides"]:
        if side["detail"]:
            print_below(f"{side['keystore']} ({side['address']}): {side['detail']}")
    out.print(f"{plan['keystore']} will become the active keystore", markup=False)
    for users, text in (
        (plan["added"], "to add to the ledger"),
        (plan["replaced"], "to put in the place of another one in the ledger"),
        (plan["gathered"], "only in another keystore, to copy to the active one"),
        (plan["missing"], "in the ledger, but not found in any keystore"),
    ):
        named = ", ".join(users["names"]) + (", …" if users["count"] > len(users["names"]) else "")
        line = f"{count(users['count'], 'key')} {text}" + (f": {named}" if named else "")
        out.print(wrapped(line, 4), markup=False)


@commands.command("accept-cluster")
def accept_cluster(
    organization: OrganizationArgument,
    keystore: KeystoreArgument,
    yes: YesOption = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Accept the Vault cluster that now answers at a keystore's address, after its server was rebuilt or replaced.

    The keystore must pass the same proof as a new one; an active keystore must also hold every archive key.
    """
    if not yes and not typer.confirm(f"Accept the cluster that now answers for {keystore}?", err=True):
        raise typer.Exit(1)
    with ask() as service:
        show_one(service.accept_cluster(organization, keystore), output)
