"""How many of something there are, as people say it."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Return how many there are, as in "1 key", "2,000 keys" and "3 entries".

    Args:
        number: How many.
        noun: What, in the singular; a noun in y after a consonant becomes one in ies.

    """
    if number == 1:
        return f"1 {noun}"
    ending = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s"
    return f"{number:,} {ending}"
