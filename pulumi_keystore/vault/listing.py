"""Answers to a LIST, which may hold a million names (Vault API, "KV secrets engine", "List secrets")."""

from __future__ import annotations

import re
from typing import Final

from pulumi_keystore.vault.parsing import parse

MOST_NAMES: Final = 5_000_000
"""No organization has so many keys at one place. To look through so many takes ten seconds of a processor."""
MAX_LIST_BYTES: Final = 256 << 20
"""Of an answer that is looked at while it comes in, and not kept: a million names take a quarter of it."""

_KEYS: Final = re.compile(rb'"data"\s*:\s*\{\s*"keys"\s*:\s*\[')
_STRING: Final = re.compile(rb'[\s,]*("(?:[^"\\]|\\.)*")')
_END: Final = re.compile(rb"[\s,]*\]")
_LONGEST: Final = 1 << 12
"""No name takes more bytes, nor what comes before the first one: so much is looked through again for each piece."""
_SOME: Final = 1000


class Listing:
    """The names in an answer, looked at while it comes in and then forgotten.

    Args:
        after: Names up to this one are passed over.
        most: How many of the names after it are kept, the first ones in order.
        without: Names that begin with one of these are not counted.
        at_most: How many names there may be: a longer list is none, and the rest of it is not looked at.
        first_is_enough: Whether nothing is asked but that there is a list: its rest is not looked at.

    """

    def __init__(
        self,
        after: str = "",
        most: int = 0,
        without: tuple[str, ...] = (),
        *,
        at_most: int = MOST_NAMES,
        first_is_enough: bool = False,
    ) -> None:
        self._after = after
        self._most = most
        self._without = without
        self._left = at_most
        self._first_is_enough = first_is_enough
        self._rest = b""
        self._begun = False
        self._broken = False
        self._kept: list[str] = []
        self._last: str | None = None
        self.count = 0
        """How many names there are, but for those that are not counted."""
        self.complete = False
        """Whether the whole list has been seen, or enough of it."""

    @property
    def names(self) -> list[str]:
        """The names that are kept, in order."""
        self._trim()
        return self._kept

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
                self._left -= 1
                if self._left < 0:
                    raise ValueError(found)
                self._see(_text_of(found[1]))
                position = found.end()
                if self._first_is_enough:
                    self.complete = True
                    return
        except ValueError:
            self._broken = True
            return
        self.complete = self._begun and _END.match(data, position) is not None
        self._rest = data[position:]
        self._broken = len(self._rest) > _LONGEST and not self.complete

    def _see(self, name: str) -> None:
        self.count += not name.startswith(self._without)
        if name > self._after and self._most and (self._last is None or name < self._last):
            self._kept.append(name)
            # Now and then, and not for each: servers give them in any order they like.
            if len(self._kept) >= 2 * self._most + _SOME:
                self._trim()

    def _trim(self) -> None:
        self._kept.sort()
        del self._kept[self._most :]
        self._last = self._kept[-1] if self._most and len(self._kept) == self._most else None


def _text_of(token: bytes) -> str:
    """Return a JSON string; one without escapes, as all of ours are, is read as it stands.

    Raises:
        ValueError: It is none, or holds what is no Unicode text.

    """
    if b"\\" not in token and token.isascii():
        text = token[1:-1].decode("ascii")
        if text.isprintable():
            return text
    text = parse(token)
    text.encode()  # half of a pair of surrogates is no text
    return str(text)


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
