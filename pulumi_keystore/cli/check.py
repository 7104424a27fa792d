"""`keystore check`: the policies without Pulumi."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pulumi_keystore.cli.output import err, out

commands = typer.Typer()


class Report(StrEnum):
    """How findings are printed."""

    TABLE = "table"
    JSON = "json"
    JUNIT = "junit"
    SARIF = "sarif"


@commands.command()
def check(
    file: Annotated[Path, typer.Argument(help="What to judge; - for standard input.", show_default=False)],
    output: Annotated[Report, typer.Option("--format", help="How to print what is found.")] = Report.TABLE,
    days: Annotated[int, typer.Option(help="Warn of client certificates that end within so many days.")] = 30,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail, too.")] = False,
) -> None:
    """Check declarations against all rules and policies, without Pulumi and without a service.

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
            out.print(f"{finding.level.value:<8}{finding.policy}  {finding.resource}: {finding.message}", markup=False)
            out.print(f"{'':8}hint: {finding.remedy}", markup=False)
        counts = [f"{sum(one.level is level for one in findings)} {level}s" for level in policies.Level]
        err.print(f"{len(resources)} declarations: {', '.join(counts)}", markup=False)
    bad = {policies.Level.ERROR, policies.Level.WARNING} if strict else {policies.Level.ERROR}
    if any(finding.level in bad for finding in findings):
        raise typer.Exit(1)
