"""What a person and a CI server get of a run of scenarios: an HTML page beside its logs, and JUnit XML."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from keystore_harness.theatre import Result

_BEFORE_S = 2.0
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Outage scenarios</title>
<style>
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; --bar: #c2410c; --ok: #15803d; --no: #b91c1c }
  @media (prefers-color-scheme: dark) { :root { --bar: #fb923c; --ok: #4ade80; --no: #f87171 } }
  body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
  h2 { margin: 2rem 0 0 } h2 small { font-weight: normal }
  .passed { color: var(--ok) } .failed, .error { color: var(--no) }
  .lane { display: grid; grid-template-columns: 14rem 1fr; align-items: center; gap: 1rem; margin: .2rem 0 }
  .lane div { position: relative; height: 1.6rem; background: color-mix(in srgb, currentColor 7%, transparent) }
  .lane div span { position: absolute; top: .2rem; bottom: .2rem; min-width: 3px; background: var(--bar) }
  .lane div i { position: absolute; top: 0; translate: -50%; font-style: normal; cursor: help }
  .axis { display: flex; justify-content: space-between; margin-left: 15rem; opacity: .7; font-size: .8rem }
  table { border-collapse: collapse; margin-top: .6rem } td { padding: .1rem 1rem .1rem 0; vertical-align: top }
  td:first-child { text-align: right; font-variant-numeric: tabular-nums }
  pre { white-space: pre-wrap } details pre { font-size: .8rem; max-height: 24rem; overflow: auto }
  @media (max-width: 40rem) { .lane { grid-template-columns: 1fr; gap: 0 } .axis { margin-left: 0 } }
</style>
<h1>Outage scenarios</h1>
<p>{{ results | selectattr("outcome", "equalto", "passed") | list | length }} of {{ results | length }} as expected.</p>
{% for result in results %}
<h2 id="{{ result.scenario.name }}">{{ result.scenario.name }}
  <small>· <strong class="{{ result.outcome }}">{{ result.outcome }}</strong>
  in {{ "%.1f" | format(result.seconds) }} s</small></h2>
<p>Fault: {{ result.scenario.fault }}. Expected: {{ result.scenario.expectation }}.
  Started {{ result.started.strftime("%Y-%m-%d %H:%M:%S") }} UTC.</p>
{% if result.message %}<pre class="{{ result.outcome }}">{{ result.message }}</pre>{% endif %}
{% set shown = result | window %}
{% for where, faults in result.timeline.faults | groupby("where") %}
<div class="lane"><b>{{ where }}</b><div>
{%- for fault in faults %}
{%- set end = fault.end if fault.end is not none else shown.end -%}
<span style="left:{{ shown.at(fault.begin) }}%;width:{{ shown.at(end) - shown.at(fault.begin) }}%" tabindex="0"
 title="{{ fault.what }}, {{ "%.1f" | format(end - fault.begin) }} s"></span>
{%- endfor %}</div></div>
{% endfor %}
<div class="lane"><b>expected</b><div>
{%- for event in result.timeline.events if event.kind in ("passed", "failed") and event.begin >= shown.begin -%}
<i style="left:{{ shown.at(event.begin) }}%" class="{{ event.kind }}" tabindex="0"
 title="{{ event.what }}, at {{ "%.1f" | format(event.begin) }} s">{{ "✓" if event.kind == "passed" else "✗" }}</i>
{%- endfor %}</div></div>
<div class="axis"><span>{{ "%.0f" | format(shown.begin) }} s</span><span>{{ "%.0f" | format(shown.end) }} s</span></div>
<table>
{% for event in result.timeline.events | sort(attribute="begin") %}
<tr><td>{{ "%.2f" | format(event.begin) }} s</td><td>{{ event.where }}</td><td class="{{ event.kind }}-text">
{%- if event.kind == "failed" %}✗ {% elif event.kind == "passed" %}✓ {% endif %}{{ event.what }}
{%- if event.kind == "fault" and event.end is none %} (not healed)
{%- elif event.kind == "fault" %} ({{ "%.1f" | format(event.end - event.begin) }} s){% endif %}</td></tr>
{% endfor %}
</table>
{% for name, path in result.files.items() if path.exists() %}
{{- "Logs: " if loop.first else ", " }}<a href="{{ path | from_page }}">{{ name }}</a>
{%- endfor %}
{% for name, text in result.logs.items() %}
<details><summary>Log of {{ name }}</summary><pre>{{ text }}</pre></details>
{% endfor %}
{% endfor %}
</html>
"""


@dataclass(frozen=True, slots=True)
class Window:
    """What the lanes show, in seconds since the start: from a little before the first fault to the last event."""

    begin: float
    end: float

    @classmethod
    def of(cls, result: Result) -> Window:
        """Return the window of a scenario; all of it where nothing broke."""
        faults, events = result.timeline.faults, result.timeline.events
        begin = max(min((fault.begin for fault in faults), default=0.0) - _BEFORE_S, 0.0)
        last = max((event.begin if event.end is None else event.end for event in events), default=0.0)
        return cls(begin, max(last, begin + 1.0) if faults else max(result.seconds, 1.0))

    def at(self, moment: float) -> float:
        """Return where a moment is, in hundredths of the width."""
        return round(100 * min(max((moment - self.begin) / (self.end - self.begin), 0.0), 1.0), 2)


def html(results: list[Result], folder: Path) -> str:
    """Return one page with everything in it: a lane for each place that broke, and every event.

    Args:
        results: What it shows.
        folder: Where it will lie, from which it links to the logs that were kept.

    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["window"] = Window.of
    environment.filters["from_page"] = lambda path: quote(os.path.relpath(path, folder))
    return environment.from_string(_PAGE).render(results=results)


def junit(results: list[Result], path: Path) -> None:
    """Write JUnit XML: one test case a scenario, its timeline as output."""
    suite = TestSuite("keystore-harness")
    for result in results:
        case = TestCase(result.scenario.name, "keystore_harness.scenarios", result.seconds)
        if result.outcome != "passed":
            case.result = [{"failed": Failure, "skipped": Skipped, "error": Error}[result.outcome](result.message)]
        case.system_out = "\n".join(result.timeline.lines())
        suite.add_testcase(case)
    document = JUnitXml("keystore-harness")
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    document.write(str(path), pretty=True)
