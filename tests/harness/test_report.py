"""The page of a run of scenarios: its lanes begin with the fault, and what went wrong has its logs."""

import datetime as dt
import re

import pytest
from keystore_harness import report
from keystore_harness.theatre import Ground, Result, Scenario
from keystore_harness.timeline import Event, Timeline


@pytest.fixture
def page(result, tmp_path):
    """The page of that scenario as it is now."""
    return lambda: report.html([result], tmp_path)


@pytest.fixture
def result():
    """A scenario of a minute whose fault begins after 40 s, lasts for 5, and is found healed after 48."""
    events = [
        Event("scenario", "steady", 3.0, 3.0, "passed"),
        Event("vault-b", "sealed", 40.0, 45.0),
        Event("scenario", "<the keys> are whole", 48.0, 48.0, "failed"),
    ]
    timeline = Timeline(events=events)
    scenario = Scenario("x", "it is sealed", "nothing is lost", print, Ground())
    logs = {"service": "<b>a line</b>"}
    return Result(scenario, "failed", "not whole", 60.0, timeline, dt.datetime.now(dt.UTC), logs)


def test_the_lanes_begin_a_little_before_the_fault(page):
    shown = page()
    assert re.search(r"<span>38 s</span><span>48 s</span>", shown)
    assert 'style="left:20.0%;width:50.0%"' in shown


def test_what_was_expected_is_beside_the_faults(page):
    shown = page()
    assert re.search(
        r'<i style="left:100.0%" class="failed" tabindex="0"\s+title="&lt;the keys&gt; are whole, at 48.0 s">✗', shown
    )
    assert "steady, at" not in shown  # it was before


def test_what_went_wrong_has_its_logs(page):
    assert "<summary>Log of service</summary><pre>&lt;b&gt;a line&lt;/b&gt;</pre>" in page()


def test_a_scenario_without_a_fault_is_shown_whole(result, page):
    result.timeline.events[:] = []
    assert "<span>0 s</span><span>60 s</span>" in page()


def test_the_whole_logs_that_were_kept_are_linked(result, page, tmp_path):
    assert "<a " not in page()
    result.files = {name: tmp_path / "it's.logs" / "x" / f"{name}.log" for name in ("service", "vault-a", "gone")}
    (tmp_path / "it's.logs" / "x").mkdir(parents=True)
    for name in ("service", "vault-a"):
        result.files[name].write_text("a line")
    links = re.findall('<a href="([^"]*)">([^<]*)</a>', page())
    assert links == [("it%27s.logs/x/service.log", "service"), ("it%27s.logs/x/vault-a.log", "vault-a")]
