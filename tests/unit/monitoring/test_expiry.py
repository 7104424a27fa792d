"""When somebody is told that a certificate expires."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.control_plane.monitoring.expiry import DAYS, Whose, notice_due
from pulumi_keystore.vault.requests import Validity

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("life_days", "left_days", "due"),
    [
        (365, 31, None), (365, 30, 30), (365, 14.5, 30), (365, 14, 14), (365, 7, 7), (365, 0.5, 1), (365, 0, None),
        (365, -1, None),
        # Renewed by a machine when a third of the 90 days is left: that is no news.
        (90, 30, None), (90, 14, 14),
        (7, 6, None), (7, 0.9, 1),
        (1, 0.2, None),
    ],
)  # fmt: skip
def test_which_notice_is_due_of_a_server(life_days, left_days, due):
    end = NOW + timedelta(days=left_days)
    assert notice_due(Whose.SERVER, Validity(end - timedelta(days=life_days), end), NOW) == due


@pytest.mark.parametrize(
    ("life_days", "left_days", "due"),
    [
        (365, 30, 30), (365, 7, 7), (365, 0, None),
        # As the tutorial's: people renew it.
        (90, 30, 30), (90, 31, None), (60, 30, 30), (59, 30, None), (59, 14, 14),
        (1, 0.2, None),
    ],
)  # fmt: skip
def test_which_notice_is_due_of_a_client(life_days, left_days, due):
    end = NOW + timedelta(days=left_days)
    assert notice_due(Whose.CLIENT, Validity(end - timedelta(days=life_days), end), NOW) == due


@given(st.sampled_from(Whose), st.integers(5, 4000), st.lists(st.floats(0, 40), min_size=1, max_size=20))
def test_notices_come_in_order_and_each_once(whose, life_days, looks):
    """However seldom it is looked, no later notice is followed by an earlier one."""
    end = NOW + timedelta(days=40)
    validity = Validity(end - timedelta(days=life_days), end)
    due = [notice_due(whose, validity, NOW + timedelta(days=at)) for at in sorted(looks)]
    told = [days for days in due if days is not None]
    assert told == sorted(told, reverse=True)
    assert set(told) <= set(DAYS)
