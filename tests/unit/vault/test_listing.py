"""Lists of names, in whatever pieces they come, and what is no list."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.vault.listing import Listing, is_empty
from tests.conftest import effort

NAME = st.text(max_size=12) | st.sampled_from(["canary-1", "canary-", '"', "]", "\\", "a/", "me.1"])
NAMES = st.lists(NAME, max_size=30)
PIECES = st.lists(st.integers(1, 40), min_size=1, max_size=20)
WHOLE = [1 << 20]


def answer(names):
    return json.dumps({"request_id": "x", "data": {"keys": names}, "warnings": None}).encode()


def fed(listing, body, sizes=WHOLE):
    position = 0
    while position < len(body):
        for size in sizes:
            listing(body[position : position + size])
            position += size
    return listing


@given(NAMES, PIECES)
def test_names_are_counted_in_whatever_pieces_they_come(names, sizes):
    listing = fed(Listing(without=("canary-",)), answer(names), sizes)
    assert listing.complete
    assert listing.count == sum(not name.startswith("canary-") for name in names)
    assert listing.names == []


@given(NAMES, PIECES, NAME, st.integers(0, 9))
def test_the_first_names_after_one_are_kept_whatever_the_order_they_come_in(names, sizes, after, most):
    listing = fed(Listing(after, most), answer(names), sizes)
    assert listing.names == sorted(name for name in names if name > after)[:most]


@given(NAMES, st.integers(1, 30))
def test_a_list_that_ends_early_is_not_complete(names, missing):
    body = answer(names)
    end = body.rindex(b"]") + 1
    assert not fed(Listing(), body[: max(0, end - missing)]).complete


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"<html>", b'{"data":{}}', b'{"data":{"keys":"a"}}', b'{"data":null}',
        b'{"data":{"keys":["\\x"]}}', b'{"data":{"keys":["\xff"]}}', b'{"data":{"keys":["a",1]}}',
        b'{"data":{"keys":["' + bytes(1 << 20) + b'"]}}', b" " * (1 << 20) + b'{"data":{"keys":[]}}',
    ],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_what_is_no_list_is_not_complete_and_not_empty(body):
    assert not fed(Listing(), body, [1 << 14]).complete
    assert not is_empty(body)


@pytest.mark.parametrize("body", [b'{"data":{"keys":["' + b"a" * 6000 + b'"]}}', b" " * 6000 + b'{"data":{"keys":[]}}'])
def test_what_is_looked_through_again_for_each_piece_is_short(body):
    """Or a list in pieces of a few bytes would take minutes of the processor."""
    assert not fed(Listing(), body, [64]).complete


def test_many_names_are_looked_through_in_the_memory_of_those_that_are_kept():
    many = effort(20_000, 100_000, 100_000)
    names = [f"me{number:06}.1" for number in range(many)]
    half = many // 2
    body, listing = answer(names), Listing(names[half][:4], 1000)
    tracemalloc.start()
    fed(listing, body, [1 << 14])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000
    assert listing.count == many
    assert listing.names == names[half : half + 1000]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"data":{},"warnings":["unknown parameter"]}', True),
        (b'{"data":{"keys":null},"warnings":["unknown parameter"]}', True),
        (b'{"data":{"keys":["a"]},"warnings":["unknown parameter"]}', False),
        (b'{"data":{},"warnings":null}', False),
    ],
)
def test_an_empty_path_is_one_with_a_warning_in_place_of_a_list(body, expected):
    assert is_empty(body) is expected


def test_a_list_that_falls_is_looked_through_as_quickly_as_one_that_rises():
    """What a server does with the order costs nothing: names are sorted now and then, and not for each."""

    class Kept(Listing):
        trims = 0

        def _trim(self):
            type(self).trims += 1
            super()._trim()

    names = [f"k{number:06}" for number in range(20_000)]
    listing = Kept(most=1000)
    for begin in range(0, len(names), 500):
        head = b'{"data":{"keys":[' if not begin else b","
        piece = ",".join(f'"{name}"' for name in names[::-1][begin : begin + 500])
        listing(head + piece.encode())
    listing(b"]}}")
    assert listing.complete
    assert listing.names == names[:1000]
    assert Kept.trims < 50


@pytest.mark.parametrize("name", [b"\\ud800", b"a\\udfffb", b"\xff"])
def test_a_name_that_is_no_text_makes_it_no_list(name):
    listing = Listing(most=10)
    listing(b'{"data":{"keys":["a","' + name + b'"]}}')
    assert not listing.complete


def test_of_a_list_that_is_longer_than_it_can_be_nothing_more_is_looked_at():
    listing = Listing(most=10, at_most=25)
    listing(b'{"data":{"keys":["a"')
    for number in range(50):
        listing(f',"k{number}"'.encode())
    listing(b"]}}")
    assert not listing.complete
    assert listing.count == 25


def test_a_list_that_is_as_long_as_it_may_be_is_whole():
    listing = Listing(most=10, without=("-",), at_most=3)
    listing(b'{"data":{"keys":["-a","b","c"]}}')
    assert listing.complete
    assert (listing.count, listing.names) == (2, ["-a", "b", "c"])


def test_where_it_is_only_asked_whether_there_is_a_list_its_first_name_is_enough():
    listing = Listing(first_is_enough=True)
    listing(b'{"data":{"keys":["a","b"')
    assert listing.complete
    assert listing.count == 1
