"""What templates make of moments."""

from datetime import UTC, datetime, timedelta

from pulumi_keystore.control_plane.console.render import day


def test_a_day_is_short_and_has_its_year_where_that_is_not_clear():
    soon = datetime.now(UTC) + timedelta(days=8)
    assert f">{soon:%b} {soon.day}</time>" in day(soon)
    assert f'title="{soon:%Y-%m-%d %H:%M:%S} UTC"' in day(soon.isoformat())
    for far in (soon + timedelta(days=400), soon - timedelta(days=400)):
        assert f">{far:%b} {far.day}, {far.year}</time>" in day(far)
