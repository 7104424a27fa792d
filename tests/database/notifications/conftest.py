"""Rounds are not over before all of it is sent, on a busy machine, too."""

import pytest

from pulumi_keystore.control_plane.runtime import background


@pytest.fixture(autouse=True)
def long_turns(monkeypatch):
    monkeypatch.setattr(background, "TURN_S", 120)
