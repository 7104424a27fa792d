"""Parts of pages that are written by a program, between two marks."""

from __future__ import annotations


def replaced(page: str, begin: str, text: str, end: str) -> str:
    """Return a page with a text in the place of what stands between two marks."""
    before, _, rest = page.partition(begin)
    return before + begin + text + end + rest.partition(end)[2]
