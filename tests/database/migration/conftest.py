"""The control plane on a database, without its servers."""

from tests.database.served import plane, served

__all__ = ["plane", "served"]
