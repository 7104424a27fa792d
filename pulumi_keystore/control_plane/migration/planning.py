"""What a migration would do; nothing is changed by asking."""

from __future__ import annotations

from pulumi_keystore.answers import MigrationPlanAnswer
from pulumi_keystore.control_plane.keystores import handover, proving
from pulumi_keystore.control_plane.migration.views import USUAL_RATE
from pulumi_keystore.control_plane.organizations import keystores, ledger, registry
from pulumi_keystore.control_plane.organizations.tables import Keystore, Organization
from pulumi_keystore.control_plane.runtime.plane import ControlPlane
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.errors import Conflict


def title(row: Keystore) -> str:
    """Return what a keystore is called where a migration is shown."""
    return f"{row.name} ({row.address or row.kind})"


def plan(plane: ControlPlane, organization: str, destination: str) -> MigrationPlanAnswer:
    """Say what a migration would do: from, to, number of keys, estimate, and what is unreachable.

    Raises:
        Conflict: Both are on one cluster.

    """
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        to = keystores.find(session, owner, destination)
        source = keystores.active_keystore(session, owner)
        keys = ledger.count_keys(session, owner)
        moves = source is not None and source.id != to.id
        if moves and source is not None:
            _require_another_cluster(source, title(to), to.cluster_id, "destination")
        carries = source is not None and moves and handover.would_carry_alerts(session, source, to.kind, to)
    ends = [row for row in (source, to) if moves and row]
    return _planned(plane, owner, source, title(to), keys if moves else 0, ends, moves=moves, carries=carries)


def plan_to_new(plane: ControlPlane, organization: str, label: str, kind: Kind, cluster_id: str) -> MigrationPlanAnswer:
    """Say what a migration to a keystore would do that was proved and is not registered yet.

    Raises:
        Conflict: It is on the cluster of the active keystore, or there is none.

    """
    with plane.transaction() as session:
        owner = registry.find(session, organization)
        source = keystores.require_active(session, owner)
        keys = ledger.count_keys(session, owner)
        carries = handover.would_carry_alerts(session, source, kind, None)
    _require_another_cluster(source, label, cluster_id, "address")
    return _planned(plane, owner, source, label, keys, [source], moves=True, carries=carries)


def _require_another_cluster(source: Keystore, label: str, cluster_id: str | None, prop: str) -> None:
    if source.cluster_id and source.cluster_id == cluster_id:
        raise Conflict(
            f"{prop}: {label} and {title(source)} are the same Vault cluster",
            hint="choose a keystore on another server",
            prop=prop,
        )


def _planned(
    plane: ControlPlane,
    owner: Organization,
    source: Keystore | None,
    destination: str,
    keys: int,
    ends: list[Keystore],
    *,
    moves: bool,
    carries: bool,
) -> MigrationPlanAnswer:
    """Return a plan; `ends` are the keystores whose connection is tested for it."""
    tested = {row.name: proving.unreachable(plane, owner, row) for row in ends}
    return {
        "organization": owner.name,
        "source": title(source) if source else None,
        "destination": destination,
        "moves": moves,
        "carries_alerts": carries,
        "keys": keys,
        "estimate_s": round(keys / USUAL_RATE, 1),
        "unreachable": [f"{name}: {why}" for name, why in tested.items() if why],
        "retain_s": plane.settings.retain_s,
        "maintenance": owner.maintenance_by,
    }
