"""What must be true before the first key moves."""

from __future__ import annotations

from collections.abc import Callable

from pulumi_keystore.errors import Conflict, HostUnavailable, KeystoreFault, Unsuitable
from pulumi_keystore.keystores.record import DamagedRecordError
from pulumi_keystore.keystores.transport import Transport
from pulumi_keystore.keystores.vault import VaultKeystore
from pulumi_keystore.migration.endings import Ending, MigrationFailed


def preflight(
    source: VaultKeystore | None, destination: VaultKeystore, origin: str, clean_up: Callable[[], None]
) -> None:
    """Prove both ends, and that the destination is another cluster and holds nothing.

    Nothing is written before all that can be read is as it should be.

    Args:
        source: The Vault keystore that is active; None for a legacy one, which is always within reach.
        destination: Where the keys shall go.
        origin: Id of the migration; the canary carries it.
        clean_up: Removes what earlier migrations left at the destination; called once it answers.

    Raises:
        MigrationFailed: A side cannot be reached.
        KeystoreFault: The destination refuses us or is unfit.
        Conflict: Both are one cluster.

    """
    with Transport() as transport:
        cluster = ""
        if source is not None:
            try:
                cluster, _ = transport.run_one(source.identify())
                transport.run_one(source.check_list())
            except KeystoreFault as fault:
                raise MigrationFailed(Ending.SOURCE_NOT_REACHABLE, str(fault)) from None
            finally:
                transport.run_one(source.revoke())
            _require_cluster_id(source, cluster)
        try:
            transport.run_one(destination.detect())
            found, _ = transport.run_one(destination.identify())
            _require_cluster_id(destination, found)
            if found == cluster:
                raise Conflict(
                    f"destination: {destination} and {source} are the same Vault cluster under two names",
                    hint="choose a keystore on another server",
                    prop="destination",
                )
            clean_up()
            if foreign := destination.count(transport):
                tenancy = destination.tenancy
                raise Unsuitable(
                    f"{destination}: the path {tenancy.mount}/{tenancy.organization}/ holds {foreign:,} entries",
                    hint="nothing is written over; look whose they are, and empty the path first",
                )
            transport.run_one(destination.prove(origin))
        except HostUnavailable as fault:
            raise MigrationFailed(Ending.DESTINATION_NOT_REACHABLE, str(fault)) from None
        except DamagedRecordError as damage:
            raise Unsuitable(f"{destination}: {damage}", hint="check the server's storage") from None
        finally:
            transport.run_one(destination.revoke())


def _require_cluster_id(keystore: VaultKeystore, cluster: str) -> None:
    if not cluster:
        # Without it nobody could tell whether two names lead to one server.
        raise Unsuitable(f"{keystore}: does not state its cluster id", hint="look at /v1/sys/health of the server")
