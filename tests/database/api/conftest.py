"""The application, for tests of its routes."""

from tests.database.served import client, client_of, plane, served

__all__ = ["client", "client_of", "plane", "served"]
