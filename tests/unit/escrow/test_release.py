"""To whom an archive key is encrypted."""

from base64 import b64encode

import pytest

from pulumi_keystore.control_plane.escrow.release import _recipient
from pulumi_keystore.errors import InvalidInput

PRIME = 2**255 - 19
# The points of low order of Curve25519 (RFC 7748, section 6.1), as little-endian numbers.
LOW_ORDER = [
    0,
    1,
    PRIME - 1,
    PRIME,
    PRIME + 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_point_of_low_order_is_no_recipient(point):
    with pytest.raises(InvalidInput) as raised:
        _recipient(b64encode(point.to_bytes(32, "little")).decode())
    assert raised.value.prop == "public_key"


@pytest.mark.parametrize(
    "text", ["", "AAAA", "not base64", "é", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode()]
)
def test_what_is_no_key_is_none(text):
    with pytest.raises(InvalidInput):
        _recipient(text)
