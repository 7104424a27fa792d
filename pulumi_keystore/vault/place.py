"""Where an organization's archive keys lie, so that two names for one place are seen to be one (contract: Safety)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One path on one Vault cluster.

    Namespace and mount are one path here: the mount `kv` of the namespace `team` is also the mount `team/kv` as the
    root namespace spells it (`tenancy.within`). A cluster has one mount under a path: it refuses a namespace where the
    path of a mount leads through, and a mount within another. Letters are as they are: `KV` is not `kv`.

    Attributes:
        cluster_id: What the cluster states in `/sys/health`; a snapshot that is restored elsewhere keeps it.
        path: The KV mount as the root namespace spells it.
        organization: The path below the mount.

    """

    cluster_id: str
    path: str
    organization: str

    def __str__(self) -> str:
        return f"{self.path}/{self.organization}/ on cluster {self.cluster_id}"
