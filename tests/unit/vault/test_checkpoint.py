"""What a keystore remembers, and who is behind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.vault.checkpoint import FOLDER, Checkpoint, Stamp, latest
from pulumi_keystore.vault.record import DamagedRecordError

EPOCHS = st.integers(0, 10**12 - 1)
NONCES = st.text("0123456789abcdef", min_size=1, max_size=16)


def checkpoint(epoch, nonce="n", *, active=True):
    return Checkpoint(epoch, nonce, "acme", active, 3, "2026-01-01T00:00:00+00:00")


@given(EPOCHS, NONCES, st.booleans())
def test_a_checkpoint_survives_the_keystore(epoch, nonce, active):
    made = checkpoint(epoch, nonce, active=active)
    assert Checkpoint.from_body(made.to_body()) == made
    assert latest([made.name.removeprefix(FOLDER)]) == made.name.removeprefix(FOLDER)


@given(
    st.dictionaries(
        st.sampled_from(["format", "epoch", "nonce", "organization", "active", "keys", "at"]),
        st.none() | st.text() | st.integers() | st.booleans(),
    )
)
def test_what_is_no_checkpoint_is_damaged(body):
    right = checkpoint(1).to_body()
    try:
        found = Checkpoint.from_body({**right, **body})
    except DamagedRecordError:
        return
    assert found.to_body() == {**right, **body}


@pytest.mark.parametrize(
    ("found", "behind"),
    [
        (None, False),
        (checkpoint(4), False),
        (checkpoint(5), False),
        (checkpoint(5, "another"), True),
        (checkpoint(6), True),
    ],
)
def test_who_is_behind(found, behind):
    assert Stamp(5, "n").is_behind(found) is behind


def test_only_names_of_checkpoints_count():
    assert latest(["000000000009", "000000000010", "9", "zzzzzzzzzzzz", "canary-1", "٠٠٠٠٠٠٠٠٠٠٩٩"]) == "000000000010"
    assert latest(["another"]) is None
