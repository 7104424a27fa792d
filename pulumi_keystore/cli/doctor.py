"""`keystore doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulumi_keystore.cli.output import Format, FormatOption, out, print_json, wrapped
from pulumi_keystore.cli.service import importing_service, settings_of
from pulumi_keystore.errors import KeystoreError

if TYPE_CHECKING:
    from pulumi_keystore.control_plane.diagnosis import Finding

commands = typer.Typer()


@commands.command()
def doctor(
    data: Annotated[Path | None, typer.Option(help="The service's data folder.")] = None,
    organization: Annotated[
        str | None, typer.Option(help="Test the keystores of this organization; by default of the first 20.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check an installation: settings, database, schema, master key, clock, mail server, DNS, keystores.

    Run it on the service's machine, as its user and with its settings. It changes nothing, sends no mail, and says what
    to do about what is wrong. Exit status: 0 nothing is wrong, 1 something is.
    """
    with importing_service():
        from pulumi_keystore.control_plane.diagnosis import Verdict, examine, wrong  # noqa: PLC0415

    def findings() -> Iterator[Finding]:
        try:
            settings = settings_of({"data": data} if data else {})
        except KeystoreError as error:
            yield wrong("settings", error)
        else:
            yield from examine(settings, organization)

    found = []
    for finding in findings():
        found.append(finding)
        if output is Format.TABLE:
            out.print(wrapped(f"{finding.verdict:8} {finding.subject}: {finding.detail}", 9), markup=False)
            if finding.hint:
                out.print(wrapped(f"{'':8} → {finding.hint}", 11), markup=False)
    if output is Format.JSON:
        print_json([finding.to_dict() for finding in found])
    if any(finding.verdict is Verdict.WRONG for finding in found):
        raise typer.Exit(1)
