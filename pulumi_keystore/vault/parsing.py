"""JSON of a server that may be broken or lie: whatever is wrong with it is one error, and numbers are bounded."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

_LONGEST_NUMBER: Final = 18
"""Digits: what fits into 64 bits. Python would count, and convert, for as long as there are digits."""


class NotADocumentError(ValueError):
    """It is no JSON document, nests too deeply, or holds a number that is no finite one of usual length."""


def parse(body: bytes) -> Any:
    """Return what a JSON document holds.

    Raises:
        NotADocumentError: It is none that a server in its senses would send.

    """
    try:
        return json.loads(body, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except (ValueError, RecursionError):
        # Nothing of it is said: it could say back what it was sent.
        raise NotADocumentError("not a JSON document") from None


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > _LONGEST_NUMBER:
        raise ValueError("a number of too many digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number that is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
