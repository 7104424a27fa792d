"""An inventory is the same for the same keys, in whatever order and shards, and another one for others."""

import os

from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.control_plane.migration.inventory import Inventory

FINGERPRINTS = st.lists(st.binary(min_size=32, max_size=32), max_size=20)


def of(fingerprints):
    found = Inventory()
    for fingerprint in fingerprints:
        found.add(fingerprint)
    return found


@given(FINGERPRINTS, st.randoms())
def test_the_order_does_not_matter(fingerprints, random):
    shuffled = random.sample(fingerprints, len(fingerprints))
    assert of(fingerprints) == of(shuffled)
    assert of(fingerprints).digest == of(shuffled).digest


@given(FINGERPRINTS, st.integers(0, 20))
def test_shares_come_together(fingerprints, cut):
    total = of(fingerprints[:cut])
    total.merge(of(fingerprints[cut:]))
    assert total == of(fingerprints)


@given(FINGERPRINTS)
def test_it_is_stored_as_a_count_and_32_bytes(fingerprints):
    found = of(fingerprints)
    assert len(found.digest) == 32
    assert Inventory.of(found.count, found.digest) == found


def test_one_other_key_makes_another_inventory():
    keys = [os.urandom(32) for _ in range(10)]
    changed = [*keys[:9], bytes([keys[9][0] ^ 1]) + keys[9][1:]]
    assert of(keys).count == of(changed).count
    assert of(keys).digest != of(changed).digest
    assert of(keys).digest != of(keys[:9]).digest
