"""Answers to a LIST, which may hold a million names (Vault API, "KV secrets engine", "List secrets")."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

_LARGE: Final = 1 << 20
_KEYS: Final = re.compile(rb'"data"\s*:\s*\{\s*"keys"\s*:\s*\[')
_STRING: Final = re.compile(rb'[\s,]*("(?:[^"\\]|\\.)*")')
_END: Final = re.compile(rb"[\s,]*\]")


def names_in(body: bytes) -> Iterator[str] | None:
    """Return the names in an answer, None where it is no such answer; those of a large one are decoded one by one."""
    if len(body) > _LARGE:
        start = _KEYS.search(body)
        return _decoded(body, start.end()) if start else None
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    data = answer.get("data") if isinstance(answer, dict) else None
    keys = data.get("keys") if isinstance(data, dict) else None
    if isinstance(keys, list):
        return (str(key) for key in keys)
    # An empty path is a 404, unless there is a warning to give: of parameters that the server does not know.
    return iter(()) if isinstance(answer, dict) and answer.get("warnings") else None


def _decoded(body: bytes, position: int) -> Iterator[str]:
    while found := _STRING.match(body, position):
        yield str(json.loads(found[1]))
        position = found.end()


class NameCounter:
    """Counts names while the answer comes in, without keeping it.

    Args:
        without: Names that begin so are not counted.

    """

    def __init__(self, without: str) -> None:
        self._without = f'"{without}'.encode()
        self._rest = b""
        self._begun = False
        self.count = 0
        self.complete = False
        """Whether the whole list has been seen."""

    def __call__(self, piece: bytes) -> None:
        """Take the next piece of the answer."""
        data, position = self._rest + piece, 0
        if not self._begun:
            start = _KEYS.search(data)
            if start is None:
                self._rest = data[-_LARGE:]
                return
            self._begun, position = True, start.end()
        while not self.complete and (found := _STRING.match(data, position)):
            self.count += not found[1].startswith(self._without)
            position = found.end()
        self._rest = data[position:]
        self.complete = self.complete or _END.match(self._rest) is not None
