"""What may not be changed now (contract: Maintenance); `runtime.gate` holds whoever writes keys."""

from __future__ import annotations

from pulumi_keystore.control_plane.organizations.tables import Organization
from pulumi_keystore.declarations.migration import Mode
from pulumi_keystore.errors import InMaintenance, NotAllowed


def require_cloud(row: Organization) -> None:
    """Raise where keystores may not be managed at all.

    Raises:
        NotAllowed: The organization is in the federal environment.

    """
    if row.environment != "cloud":
        raise NotAllowed(
            f"organization: {row.name!r} is in the {row.environment} environment, where keystores are not managed",
            hint="only cloud organizations have keystores of their own",
            prop="organization",
        )


def begin(row: Organization, migration_id: str, mode: Mode) -> None:
    """Put an organization, whose row is locked, in maintenance."""
    row.maintenance_by, row.online = migration_id, mode == Mode.ONLINE


def mirror(row: Organization, keystore_id: int) -> None:
    """Let keys that are written from now on go to a second keystore, too; the gate is closed."""
    if row.online:
        row.mirror_id = keystore_id


def stop_mirroring(row: Organization) -> None:
    """Let keys go to the active keystore alone again; the gate is closed."""
    row.mirror_id = None


def end(row: Organization) -> None:
    """Let an organization, whose row is locked, out of maintenance."""
    row.maintenance_by, row.online, row.mirror_id = None, False, None


def require_no_maintenance(row: Organization) -> None:
    """Raise while a migration is running.

    Raises:
        InMaintenance: Its keys are migrating.

    """
    if row.maintenance_by is not None:
        raise _in_maintenance(row)


def require_writable(row: Organization) -> None:
    """Raise while no keys may be written.

    Raises:
        InMaintenance: Its keys are migrating, and not online.

    """
    if row.maintenance_by is not None and not row.online:
        raise _in_maintenance(row)


def _in_maintenance(row: Organization) -> InMaintenance:
    return InMaintenance(
        f"the organization {row.name!r} is in maintenance: its archive keys are migrating",
        hint=f"watch it with `keystore migration watch {row.name}` and try again when it has ended",
    )
