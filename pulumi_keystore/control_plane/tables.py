"""Every table, for the schema and for whoever follows a foreign key: each domain has its own."""

import pulumi_keystore.control_plane.identity.tables
import pulumi_keystore.control_plane.keystores.tables
import pulumi_keystore.control_plane.migration.tables
import pulumi_keystore.control_plane.monitoring.tables
import pulumi_keystore.control_plane.notifications.tables
import pulumi_keystore.control_plane.organizations.tables  # noqa: F401
from pulumi_keystore.control_plane.runtime.tables import Base

__all__ = ["Base"]
