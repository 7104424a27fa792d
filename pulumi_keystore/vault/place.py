"""Where an organization's archive keys lie, so that two names for one place are seen to be one (contract: Safety)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One path on one Vault cluster.

    Mounts are declared by one name below the root namespace (KS034), so a place has no namespace of its own.

    Attributes:
        cluster_id: What the cluster states in `/sys/health`; a snapshot that is restored elsewhere keeps it.
        mount: The KV mount.
        organization: The path below the mount.

    """

    cluster_id: str
    mount: str
    organization: str

    def __str__(self) -> str:
        return f"{self.mount}/{self.organization}/ on cluster {self.cluster_id}"
