"""What templates make of moments."""

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from pulumi_keystore.control_plane.console import render
from pulumi_keystore.control_plane.console.render import day
from pulumi_keystore.declarations.migration import Phase, State


def test_a_day_is_short_and_has_its_year_where_that_is_not_clear():
    soon = datetime.now(UTC) + timedelta(days=8)
    assert f">{soon:%b} {soon.day}</time>" in day(soon)
    assert f'title="{soon:%Y-%m-%d %H:%M:%S} UTC"' in day(soon.isoformat())
    for far in (soon + timedelta(days=400), soon - timedelta(days=400)):
        assert f">{far:%b} {far.day}, {far.year}</time>" in day(far)


def test_how_long_a_certificate_is_good_is_one_pill():
    ends = datetime.now(UTC) + timedelta(days=8, hours=1)
    certificate = render._environment.get_template("_status.html").module.certificate
    soon = re.sub("<.*?>", "", certificate(8, ends))
    assert soon.strip() == f"! expires in 8 days ({ends:%b} {ends.day})"
    assert re.sub("<.*?>", "", certificate(1, ends)).strip().startswith("! expires in 1 day (")
    assert re.sub("<.*?>", "", certificate(-1, ends)).strip() == f"✕ expired ({ends:%b} {ends.day})"


@pytest.mark.parametrize(
    ("phase", "step"),
    [(Phase.COPY, "Copy"), (Phase.VERIFY, "Read back"), (Phase.CLEAN_UP, "Empty the source"),
     (Phase.ROLL_BACK, "Roll back: remove the copies from the destination")],
)  # fmt: skip
def test_a_migration_shows_the_phase_that_it_is_in(phase, step):
    """A roll-back is one of its own: the source keeps what it holds, and what was copied is removed again."""
    running = SimpleNamespace(
        phase=phase, state=State.RUNNING, done=5, verified=5, total=20, rate=3, remaining_s=5, cancel_by=None, id="1",
        source="first", destination="second", started_at=datetime.now(UTC), requested_by="ops",
    )  # fmt: skip
    visitor, organization = SimpleNamespace(may_manage=True, form_token="x"), SimpleNamespace(name="acme")
    template = render._environment.get_template("_progress.html")
    page = template.render(running=running, visitor=visitor, organization=organization)
    [now] = re.findall('<li[^>]*aria-current="step">([^<]*)</li>', page)
    assert now.strip() == step
    assert ("Empty the source" in page) == (phase is not Phase.ROLL_BACK)
