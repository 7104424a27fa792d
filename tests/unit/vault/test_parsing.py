"""JSON of a server that may lie."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.vault.checkpoint import Checkpoint
from pulumi_keystore.vault.listing import is_empty
from pulumi_keystore.vault.parsing import NotADocumentError, parse
from pulumi_keystore.vault.record import ArchiveKey, DamagedRecordError
from pulumi_keystore.vault.requests import Response

LIES = [
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"n": ' + b"9" * 400 + b"}",
    b'{"n": ' + b"9" * 10_000 + b"}",
    b'{"n": 1e999}',
    b'{"n": NaN}',
    b'{"n": -Infinity}',
    b'"\xff"',
    b"\xff\xfe\x00",
    b"",
]


@pytest.mark.parametrize("body", LIES, ids=range(len(LIES)))
def test_a_lie_is_no_document(body):
    with pytest.raises(NotADocumentError):
        parse(body)
    assert Response(200, body).json() == {}
    assert Response(500, body).errors == ""
    assert not is_empty(body)


@given(st.binary(max_size=300))
def test_whatever_comes_there_is_a_document_or_one_error(body):
    try:
        parse(body)
    except NotADocumentError:
        assert Response(200, body).json() == {}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**18) + 1, 10**18 - 1) | st.text(), st.lists, max_leaves=20
    )
)
def test_what_servers_say_is_read_as_it_is(value):
    assert parse(json.dumps({"data": value}).encode()) == {"data": value}


RECORD = ArchiveKey("acme", "me", 1, bytes(32), "test").to_body()
CHECKPOINT = Checkpoint(3, "abc", "acme", active=True, keys=1, at="2026-01-01T00:00:00+00:00").to_body()


@pytest.mark.parametrize(
    "change",
    [
        {"generation": 2**31}, {"generation": 0}, {"generation": -1}, {"generation": "9" * 5000}, {"generation": [1]},
        {"user": "a\0b"}, {"user": ""}, {"user": "x" * 600}, {"user": "\ud800"}, {"archive_key": 5},
    ],
)  # fmt: skip
def test_a_record_that_the_ledger_could_not_hold_is_damaged(change):
    assert ArchiveKey.from_body(RECORD).user == "me"
    with pytest.raises(DamagedRecordError):
        ArchiveKey.from_body({**RECORD, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 10**12},
        {"epoch": -1},
        {"keys": 10**15},
        {"nonce": "n" * 33},
        {"at": "x" * 5000},
        {"active": 1},
        {"at": "\0"},
        {"at": "\ud800"},
        {"at": "x"},
        {"at": "2026-01-01T00:00:00"},
        {"nonce": "\0"},
        {"organization": "\n"},
    ],
)
def test_a_checkpoint_that_the_database_could_not_hold_is_none(change):
    assert Checkpoint.from_body(CHECKPOINT).epoch == 3
    with pytest.raises(DamagedRecordError):
        Checkpoint.from_body({**CHECKPOINT, **change})
