"""All keys of an organization are read by one at a time, and those of another meanwhile."""

import threading
from contextlib import suppress

import pytest

from pulumi_keystore.control_plane.keystores import alone as module
from pulumi_keystore.control_plane.keystores.alone import alone
from pulumi_keystore.errors import Conflict


def test_who_comes_second_waits_and_is_told_in_the_end(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    with alone(1, "acme"):
        with pytest.raises(Conflict, match="being read just now"), alone(1, "acme"):
            pass
        with alone(2, "other"):
            pass
    with alone(1, "acme"):
        pass


def test_who_waits_comes_next_also_after_a_mistake():
    came = threading.Event()

    def second():
        with alone(1, "acme"):
            came.set()

    waiting = threading.Thread(target=second)
    with suppress(ZeroDivisionError), alone(1, "acme"):
        waiting.start()
        assert not came.wait(0.05)
        raise ZeroDivisionError
    assert came.wait(60)
    waiting.join(60)
