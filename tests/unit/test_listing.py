"""Lists of names, in whatever pieces they come, and what is no list."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.keystores import listing
from pulumi_keystore.keystores.listing import NameCounter, names_in

NAMES = st.lists(
    st.text(max_size=12) | st.sampled_from(["canary-1", "canary-", '"', "]", "\\", "a/", "me.1"]), max_size=30
)


def answer(names):
    return json.dumps({"request_id": "x", "data": {"keys": names}, "warnings": None}).encode()


@given(NAMES)
def test_names_are_the_same_decoded_at_once_or_one_by_one(names):
    body = answer(names)
    assert list(names_in(body)) == names
    start = listing._KEYS.search(body)
    assert list(listing._decoded(body, start.end())) == names


@given(NAMES, st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_they_are_counted_in_whatever_pieces_they_come(names, sizes):
    body, counter, position = answer(names), NameCounter("canary-"), 0
    while position < len(body):
        for size in sizes:
            counter(body[position : position + size])
            position += size
    assert counter.complete
    assert counter.count == sum(not name.startswith("canary-") for name in names)


@given(NAMES, st.integers(1, 30))
def test_a_list_that_ends_early_is_not_complete(names, missing):
    body = answer(names)
    end = body.rindex(b"]") + 1
    counter = NameCounter("canary-")
    counter(body[: max(0, end - missing)])
    assert not counter.complete


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"<html>", b'{"data":{}}', b'{"data":{"keys":"a"}}', b'{"data":null}']
)
def test_what_is_no_list_is_none(body):
    assert names_in(body) is None
    counter = NameCounter("canary-")
    counter(body)
    assert not counter.complete


def test_an_empty_path_with_a_warning_is_an_empty_list():
    assert list(names_in(b'{"data":{},"warnings":["unknown parameter"]}')) == []
