"""When the end of a certificate is near; the command knows it without what reads certificates."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

WARN_BEFORE_EXPIRY: Final = timedelta(days=30)
"""How long before it expires that a certificate is shown, notified and warned of."""
