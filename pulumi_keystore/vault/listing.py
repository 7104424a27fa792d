"""Answers to a LIST, which may hold a million names (Vault API, "KV secrets engine", "List secrets")."""

from __future__ import annotations

import re
from bisect import insort
from typing import Final

from pulumi_keystore.vault.parsing import parse

_KEYS: Final = re.compile(rb'"data"\s*:\s*\{\s*"keys"\s*:\s*\[')
_STRING: Final = re.compile(rb'[\s,]*("(?:[^"\\]|\\.)*")')
_END: Final = re.compile(rb"[\s,]*\]")
_LONGEST: Final = 1 << 16
"""No name takes more bytes, nor what comes before the first one."""


class Listing:
    """The names in an answer, looked at while it comes in and then forgotten.

    Args:
        after: Names up to this one are passed over.
        most: How many of the names after it are kept, the first ones in order.
        without: Names that begin with one of these are not counted.

    """

    def __init__(self, after: str = "", most: int = 0, without: tuple[str, ...] = ()) -> None:
        self._after = after
        self._most = most
        self._without = without
        self._rest = b""
        self._begun = False
        self._broken = False
        self.names: list[str] = []
        """The names that are kept, in order."""
        self.count = 0
        """How many names there are, but for those that are not counted."""
        self.complete = False
        """Whether the whole list has been seen."""

    def __call__(self, piece: bytes) -> None:
        """Take the next piece of the answer."""
        if self.complete or self._broken:
            return
        data, position = self._rest + piece, 0
        if not self._begun:
            start = _KEYS.search(data)
            self._begun, position = start is not None, start.end() if start else 0
        try:
            while self._begun and (found := _STRING.match(data, position)):
                self._see(parse(found[1]))
                position = found.end()
        except ValueError:
            self._broken = True
            return
        self.complete = self._begun and _END.match(data, position) is not None
        self._rest = data[position:]
        self._broken = len(self._rest) > _LONGEST and not self.complete

    def _see(self, name: str) -> None:
        self.count += not name.startswith(self._without)
        if name > self._after and (len(self.names) < self._most or (self.names and name < self.names[-1])):
            insort(self.names, name)
            del self.names[self._most :]


def is_empty(body: bytes) -> bool:
    """Tell whether an answer says that there is nothing in the path.

    That is a 404, unless there is a warning to give: of parameters that the server does not know.
    """
    try:
        answer = parse(body)
    except ValueError:
        return False
    if not isinstance(answer, dict):
        return False
    data = answer.get("data")
    keys = data.get("keys") if isinstance(data, dict) else None
    return keys is None and bool(answer.get("warnings"))
