"""How the command shows moments: beside their age in details, in lists whichever of the two helps more."""

from datetime import UTC, datetime, timedelta

import pytest

from pulumi_keystore.cli import output

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _now(monkeypatch):
    monkeypatch.setattr(output, "now_utc", lambda: NOW)


@pytest.mark.parametrize(
    ("away", "in_a_list", "in_details"),
    [
        ({"seconds": -5}, "5 s ago", "5 s ago"),
        ({"hours": -2, "minutes": -5}, "2 h ago", "2 h 5 min ago"),
        ({"days": 30}, "in 30 d", "in 30 d"),
        ({"days": 299, "hours": 23}, "in 299 d", "in 299 d 23 h"),
    ],
)
def test_an_age_has_one_unit_in_a_list_and_two_in_details(away, in_a_list, in_details):
    stamp = (NOW + timedelta(**away)).isoformat()
    assert output.age(stamp) == in_a_list
    assert output.local_time(stamp).endswith(f", {in_details}")


def test_what_has_no_moment_has_no_age():
    assert output.age(None) is None
