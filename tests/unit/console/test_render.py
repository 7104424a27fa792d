"""What templates make of moments."""

import re
from datetime import UTC, datetime, timedelta

from pulumi_keystore.control_plane.console import render
from pulumi_keystore.control_plane.console.render import day


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
