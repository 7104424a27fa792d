"""What may be wrong with an organization, worst first, by which lists are filtered; and how lists are sorted."""

from __future__ import annotations

from enum import StrEnum


class Problem(StrEnum):
    """Something that an administrator has to look after."""

    SUSPENDED = "suspended"
    """A keystore is newer than the database."""
    OFFLINE = "offline"
    """The keystore in use does not work, or has not been checked lately."""
    KEYS_MISSING = "keys-missing"
    """The latest count or audit did not find every archive key."""
    MIGRATION_FAILED = "migration-failed"
    """The latest migration failed, in the last seven days."""
    CERTIFICATE = "certificate"
    """The client certificate of the keystore in use has expired, or does so within 30 days; or its server's does."""
    NO_ALERTS = "no-alerts"
    """Nobody is told when the keystore in use is offline."""


class ProblemFilter(StrEnum):
    """What a list can be filtered by: a `Problem`, or any of them."""

    SUSPENDED = Problem.SUSPENDED
    OFFLINE = Problem.OFFLINE
    KEYS_MISSING = Problem.KEYS_MISSING
    MIGRATION_FAILED = Problem.MIGRATION_FAILED
    CERTIFICATE = Problem.CERTIFICATE
    NO_ALERTS = Problem.NO_ALERTS
    ANY = "any"


class Order(StrEnum):
    """How a list is sorted."""

    NAME = "name"
    NAME_DESCENDING = "-name"
    NEWEST = "newest"
    """Those that were made last come first."""
    CERTIFICATE = "certificate"
    """Those whose client certificate expires first come first; those that have none are left out."""
    PROBLEMS = "problems"
    """Those with a problem come first, by name, then all others."""
