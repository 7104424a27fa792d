"""Lists come a page at a time: how much an answer holds, and where it begins."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Query

MOST: Final = 1000
"""How many rows an answer holds."""
Limit = Annotated[int, Query(ge=1, le=MOST, description="how many at the most")]
AfterName = Annotated[str, Query(max_length=63, description="begin after this name")]
AfterId = Annotated[str, Query(max_length=36, description="begin after the one of this id")]
AfterNumber = Annotated[int, Query(ge=0, le=2**31 - 1, description="begin after the one of this number")]
Before = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="only what came before the entry of this id")]
