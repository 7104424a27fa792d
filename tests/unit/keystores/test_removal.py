"""A removal ends, whatever a server says of what was deleted, and deletes nothing that is not at the active keystore."""

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.control_plane.keystores.removal import Removal
from pulumi_keystore.declarations.tenancy import Tenancy
from pulumi_keystore.errors import KeystoreFault
from pulumi_keystore.vault.place import Place
from pulumi_keystore.vault.record import ArchiveKey
from tests.flows import drive

ORIGIN = "a-migration"


class MockTransport:
    """Runs flows that ask nothing of anyone."""

    def run_one(self, flow):
        return drive(flow, None)

    def run(self, flows, in_flight, watch=None):
        return map(self.run_one, flows)


class MockKeystore:
    """A mock of a keystore where what was deleted is there again so many times."""

    def __init__(self, cluster, records, comes_back=0):
        self.cluster_id, self.tenancy = cluster, Tenancy("acme")
        self.place = Place(cluster, "kv", "acme")
        self.records = {record.name: record for record in records}
        self.comes_back = dict.fromkeys(self.records, comes_back)
        self.lists = 0

    def key_pages(self, transport):
        self.lists += 1
        yield list(self.records)

    def count(self, transport):
        return len(self.records)

    def _done(self, answer=None):
        return answer
        yield

    def require_cluster(self):
        return self._done()

    require = require_cluster

    def remove_canaries(self, origin=""):
        return self._done()

    def read(self, name):
        return self._done(self.records.get(name))

    def same(self, record):
        return self._done(self.records.get(record.name))

    def has_enrolled(self, name):
        return self._done(name in self.records)

    def keep(self, record):
        self.records[record.name] = record
        return self._done()

    def erase(self, name):
        self.comes_back[name] -= 1
        if self.comes_back[name] < 0:
            del self.records[name]
        return self._done()


def record(number):
    return ArchiveKey("acme", f"u{number}@acme", 1, bytes(32), ORIGIN)


def removal(at, active):
    return Removal(MockTransport(), at, active, 4, lambda _: False, nullcontext)


@given(keys=st.integers(0, 5), times=st.integers(0, 20))
def test_copies_that_come_back_are_removed_again_and_not_for_ever(keys, times):
    records = [record(number) for number in range(keys)]
    at, active = MockKeystore("b", records, times), MockKeystore("a", records)
    try:
        removal(at, active).own(ORIGIN)
    except KeystoreFault as fault:
        assert "come back" in str(fault)
        assert times > 7
    else:
        assert not at.records
    # What has gone is looked for twice more; what never goes ends it.
    assert at.lists <= 10
    assert len(active.records) == keys


@given(keys=st.integers(1, 5), times=st.integers(0, 20))
def test_a_keystore_that_is_emptied_is_looked_at_again_and_not_for_ever(keys, times):
    records = [record(number) for number in range(keys)]
    at, active = MockKeystore("b", records, times), MockKeystore("a", records)
    try:
        removal(at, active).all_keys()
    except KeystoreFault:
        assert times > 2
    else:
        assert not at.records
    assert at.lists <= 3


@pytest.mark.parametrize("whole", [True, False])
@given(keys=st.integers(1, 5), there=st.integers(0, 5))
def test_what_the_active_keystore_lacks_is_there_before_it_is_deleted(whole, keys, there):
    records = [record(number) for number in range(keys)]
    at, active = MockKeystore("b", records), MockKeystore("a", records[:there])
    work = removal(at, active)
    work.all_keys() if whole else work.own(ORIGIN)
    assert set(active.records) == {each.name for each in records}
    assert not at.records
