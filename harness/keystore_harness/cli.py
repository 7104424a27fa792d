"""`keystore-harness`: run outage scenarios, and keep the machine clean."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from keystore_harness import binary, report, workspace
from keystore_harness.errors import HarnessError
from keystore_harness.scenarios import SCENARIOS
from keystore_harness.theatre import Result, Settings, Theatre

app = typer.Typer(
    name="keystore-harness",
    help="Break real Vault servers on purpose, and see whether the keystore service keeps every key.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
_console = Console(stderr=True, highlight=False)


@app.command("list")
def list_scenarios() -> None:
    """List the scenarios, and what the machine has to have for each."""
    names = Column("scenario", no_wrap=True, min_width=max(map(len, SCENARIOS)))
    table = Table(names, "what breaks", "what is expected", "needs", box=None)
    for scenario in SCENARIOS.values():
        table.add_row(scenario.name, scenario.fault, scenario.expectation, scenario.ground.needs)
    Console(highlight=False).print(table)


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(metavar="SCENARIO...", help="Names from `list`, or `all`.")],
    *,
    driver: Annotated[str, typer.Option(help="How servers run: process or container.")] = "process",
    binary_path: Annotated[
        str | None,
        typer.Option("--binary", metavar="PATH", help="`bao` or `vault`.", envvar=binary.BINARY, show_default=False),
    ] = None,
    keys: Annotated[int, typer.Option(min=10, help="How many archive keys the organization has.")] = 1000,
    seconds: Annotated[float, typer.Option(min=1, help="How long an outage of a given length lasts.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Write the timeline to this HTML file, logs beside it.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the results to this JUnit XML file.")] = None,
) -> None:
    """Run scenarios; exit 0 if all are as expected, 1 if one is not, 2 if one could not be run.

    With `all`, those that need what this machine has not are skipped.

    Examples: `keystore-harness run destination-lost-at-half`, `keystore-harness run all --html outages.html`.
    """
    # Those that can share servers come together.
    chosen = sorted(SCENARIOS, key=lambda name: repr(SCENARIOS[name].ground)) if "all" in names else names
    for name in chosen:
        if name not in SCENARIOS:
            raise HarnessError(f"no scenario {name!r}; `keystore-harness list` shows them")
    for path in (html, junit):
        if path is not None and not path.parent.is_dir():
            raise HarnessError(f"no folder {path.parent} to write {path.name} to")
    if any(SCENARIOS[name].ground.network for name in names if name != "all"):
        binary.find_toxiproxy()
    product, version = binary.version_of(binary.find_vault(binary_path))
    _console.print(f"servers: {product} {version}")
    results: list[Result] = []
    settings = Settings(driver, binary_path, keys, seconds)
    with Theatre(settings, html.with_suffix(".logs") if html else None) as theatre:
        for number, name in enumerate(chosen, 1):
            scenario = SCENARIOS[name]
            what = f"{scenario.fault}; expected: {scenario.expectation}"
            _console.print(f"[bold]{number}/{len(chosen)} {name}[/]: {what}")
            result = theatre.play(scenario, lambda text: _console.print(f"    {text}", markup=False))
            results.append(result)
            colour = {"passed": "green", "failed": "red"}.get(result.outcome, "yellow")
            _console.print(f"    [{colour}]{result.outcome}[/] in {result.seconds:.1f} s", end=" ")
            _console.print(result.message, markup=False)
    if html is not None:
        html.write_text(report.html(results, html.parent))
        _console.print(f"timeline: {html}")
    if junit is not None:
        report.junit(results, junit)
        _console.print(f"results: {junit}")
    outcomes = {result.outcome for result in results}
    raise typer.Exit(1 if "failed" in outcomes else 2 if "error" in outcomes else 0)


@app.command()
def clean(
    *, kept: Annotated[bool, typer.Option("--kept", help="Also what --keystore-keep left on purpose.")] = False
) -> None:
    """Remove servers, containers and folders that killed runs left behind (each run does so at its start)."""
    removed = workspace.reap(kept=kept)
    _console.print(f"removed what {len(removed)} {'run' if len(removed) == 1 else 'runs'} left behind")


@app.command()
def obtain(what: Annotated[str, typer.Argument(metavar="toxiproxy", help="The program to obtain.")]) -> None:
    """Build a program the harness needs with Go, once; it stays in the user's cache."""
    if what != "toxiproxy":
        raise HarnessError(f"nothing called {what!r} to obtain; expected toxiproxy")
    Console(highlight=False, soft_wrap=True).print(str(binary.obtain_toxiproxy()))


def main() -> None:
    """Run the command; an error of the harness is one line and exit status 2."""
    try:
        app()
    except HarnessError as error:
        _console.print(f"keystore-harness: {error}", markup=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        _console.print("interrupted; everything is removed")
        sys.exit(130)
    except Exception:  # noqa: BLE001 - a bug of ours: say so, and where
        _console.print(traceback.format_exc(), markup=False)
        sys.exit(3)
