"""`keystore check`: the policies without Pulumi."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pulumi_keystore.cli.output import out, say, wrapped
from pulumi_keystore.counting import count
from pulumi_keystore.declarations.expiry import WARN_BEFORE_EXPIRY
from pulumi_keystore.rules import Severity

commands = typer.Typer()


class Report(StrEnum):
    """How findings are printed."""

    TABLE = "table"
    JSON = "json"
    JUNIT = "junit"
    SARIF = "sarif"


@commands.command()
def check(
    file: Annotated[Path, typer.Argument(help="File to check; - reads standard input.", show_default=False)],
    output: Annotated[Report, typer.Option("--format", help="Output format.")] = Report.TABLE,
    days: Annotated[
        int, typer.Option(help="Warn about client certificates that expire within this many days.", min=0, max=3650)
    ] = WARN_BEFORE_EXPIRY.days,
    project: Annotated[
        Path, typer.Option(help="Folder of the Pulumi program whose preview FILE is; for --format sarif.")
    ] = Path(),
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
) -> None:
    """Check declarations against all rules and policies, without Pulumi and without a service.

    FILE is the output of `pulumi preview --json` or `pulumi stack export`, or a YAML or JSON file with the lists
    organizations, keystores, migrations and monitors. Their entries take the inputs of the resources; in such a file,
    certificate is the path of a PKCS#12 file and certificate_password_env names an environment variable.

    Exit status: 0 no errors, 1 at least one error (with --strict: or warning).
    """
    from pulumi_keystore.policy import declared, policies, report  # noqa: PLC0415 - other commands start faster

    shown = "standard input" if str(file) == "-" else str(file)
    given = declared.parse(sys.stdin.read(), Path(), shown) if str(file) == "-" else declared.read(file)
    findings = policies.check(given, policies.Settings(certificate_days=days))
    resources = [f"{one.kind} {one.name}" for one in given]
    if output is Report.JSON:
        sys.stdout.write(report.to_json(findings, shown))
    elif output is Report.JUNIT:
        sys.stdout.write(report.to_junit(findings, resources))
    elif output is Report.SARIF:
        sys.stdout.write(report.to_sarif(findings, None if str(file) == "-" else file, project))
        if missing := report.left_out(findings):
            say(missing)
    else:
        for finding in findings:
            line = f"{finding.rule.severity:<8}{finding.rule.id}  {finding.resource}: {finding.message}"
            out.print(wrapped(line, 15), markup=False)
            if finding.at:
                column = f":{finding.at.column}" if finding.at.column else ""
                out.print(f"{'':8}at: {finding.at.file or shown}:{finding.at.line}{column}", markup=False)
            out.print(wrapped(f"{'':8}hint: {finding.remedy}", 14), markup=False)
        counts = [count(sum(one.rule.severity is level for one in findings), level) for level in Severity]
        say(f"{count(len(resources), 'declaration')}: {', '.join(counts)}")
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    if any(finding.rule.severity in bad for finding in findings):
        raise typer.Exit(1)
