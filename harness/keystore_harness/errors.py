"""The harness's errors: one line each, saying what was found, what is expected and what to do next."""

from __future__ import annotations


class HarnessError(Exception):
    """Something the person who runs the harness can put right; the message is one line."""


class Unsupported(HarnessError):  # noqa: N818 - reads as what it is: `raise Unsupported`
    """Not to be had with this driver, machine or server version; a test that needs it is skipped."""
