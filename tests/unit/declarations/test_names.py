"""Addresses of people: what is refused would be read as another address, or as none."""

from email.headerregistry import Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulumi_keystore.declarations.names import check_email
from pulumi_keystore.errors import RuleViolation


@pytest.mark.parametrize(
    "address", ["a@example.com", "o'brien+x=y@sub.example.com", "a.b.c@example.co", "x" * 64 + "@example.com"]
)
def test_usual_addresses_are_accepted(address):
    assert check_email(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "=?utf-8?q?=0A?=@example.com", "a=?b@example.com", ".a@example.com", "a.@example.com", "a..b@example.com",
        "x" * 65 + "@example.com", "a@example", "a@-example.com", "a b@example.com", "a@example.com\n", "", "@example.com",
        "a@b@example.com",
    ],
)  # fmt: skip
def test_others_are_refused(address):
    with pytest.raises(RuleViolation) as raised:
        check_email(address)
    assert raised.value.rule == "KS033"


@given(st.text(max_size=20).map(lambda local: f"{local}@example.com"))
def test_what_is_accepted_is_read_as_itself(address):
    try:
        check_email(address)
    except RuleViolation:
        return
    assert Address(addr_spec=address).addr_spec == address
