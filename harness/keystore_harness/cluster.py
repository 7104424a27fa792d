"""A cluster of three servers with one leader, behind a load balancer; and how it breaks."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator

import hvac
import requests

from keystore_harness import drivers
from keystore_harness.balancer import Balancer
from keystore_harness.ca import CertificateAuthority
from keystore_harness.drivers import Driver
from keystore_harness.errors import Unsupported
from keystore_harness.network import Proxy, Toxiproxy
from keystore_harness.ports import free_port, wait_until
from keystore_harness.server import VaultServer
from keystore_harness.timeline import Timeline
from keystore_harness.vault import Vault

_ELECTION_TIMEOUT_S = 60
_ERRORS = (hvac.exceptions.VaultError, requests.exceptions.RequestException)


class VaultCluster(Vault):
    """Servers that share their data by raft, under one public DNS name.

    Use it as a context manager; it ends and removes everything it made. Each verb waits for what it promises.

    Args:
        name: The DNS name in every node's certificate.
        ca: The CA that issues the nodes' certificates and is trusted for client certificates; a new one by
            default.
        size: How many nodes.
        driver: `process`, `container`, or a driver.
        network: A Toxiproxy to put before the balancer and between every two nodes, for faults of either network.
        timeline: Where its faults are recorded, one of its own by default.

    Raises:
        HarnessError: The driver lacks something.

    """

    def __init__(
        self,
        name: str = "vault.example.com",
        ca: CertificateAuthority | None = None,
        *,
        size: int = 3,
        driver: str | Driver = "process",
        network: Toxiproxy | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.name = name
        self.ca = ca or CertificateAuthority()
        self.timeline = timeline or Timeline()
        self.driver = drivers.driver(driver) if isinstance(driver, str) else driver
        self.port = free_port()
        self._toxiproxy = network
        self._proxy = None
        self._links: dict[tuple[VaultServer, VaultServer], Proxy] = {}
        self._balancer = Balancer(self._active_port, free_port() if network else self.port)
        self._stack = contextlib.ExitStack()
        self.nodes = [
            VaultServer(name, self.ca, driver=self.driver, timeline=self.timeline, node=f"{name}-{number}", member=True)
            for number in range(1, size + 1)
        ]

    @property
    def version(self) -> tuple[str, str]:
        """Product and version, such as ("OpenBao", "2.7.2")."""
        return self.driver.version

    @property
    def storage_url(self) -> str:
        """Where the administrator's requests go: the leader's own address."""
        return self.leader.storage_url

    def log(self) -> str:
        """Return what all nodes have logged."""
        return "\n".join(f"== {node.node} ==\n{node.log()}" for node in self.nodes)

    # Life.

    def __enter__(self) -> VaultCluster:
        try:
            self._connect()
            first, *others = self.nodes
            self._stack.enter_context(first)
            self.shares, self.root_token = first.shares, first.root_token
            # Nodes otherwise have no vote in their first ten seconds.
            quickly = {"server_stabilization_time": "1s", "cleanup_dead_servers": False}
            first.client().write_data("sys/storage/raft/autopilot/configuration", data=quickly)
            for node in others:
                self._stack.callback(node.close)
                node.shares, node.root_token = self.shares, self.root_token
                node.start()
                self._join(node, first)
            wait_until(lambda: len(self.voters()) == len(self.nodes), f"all nodes of {self.name} to vote", 60)
            self._stack.enter_context(self._balancer)
            wait_until(lambda: self._balancer.target, "the balancer to find the leader")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all nodes and remove what was made; safe to call twice."""
        self._stack.close()

    def _connect(self) -> None:
        """Put a proxy before the balancer, and one between each node and each other."""
        if self._toxiproxy is None:
            return
        self._proxy = self._toxiproxy.proxy(self.name, self._balancer.port, port=self.port, timeline=self.timeline)
        self._stack.callback(self._proxy.close)
        numbered = list(enumerate(self.nodes, 1))
        for number, node in numbered:
            node.cluster_host = f"node-{number}.cluster.example.com"
            node.hosts = {node.cluster_host: "127.0.0.1"}
        for (here, node), (there, other) in itertools.permutations(numbered, 2):
            # Nodes call each other by names, and each has its own address for every name: that of its own proxy.
            host = f"127.1.{here}.{there}"
            node.hosts = {**node.hosts, f"node-{there}.cluster.example.com": host}
            link = self._toxiproxy.proxy(
                f"{node.node} to {other.node}", other.cluster_port, host=host, port=other.cluster_port,
                timeline=self.timeline,
            )  # fmt: skip
            self._links[node, other] = link
            self._stack.callback(link.close)

    def _join(self, node: VaultServer, leader: VaultServer) -> None:
        answer = {"leader_api_addr": leader.storage_url, "leader_ca_cert": self.ca.pem}
        node.client(token="").write_data("sys/storage/raft/join", data=answer)
        wait_until(lambda: self._unsealed(node), f"{node.node} to join", _ELECTION_TIMEOUT_S)

    def _unsealed(self, node: VaultServer) -> bool:
        """Give a node its shares, again if it was not ready for them; tell whether it is unsealed."""
        with contextlib.suppress(*_ERRORS):
            if not node.sealed:
                return True
            node.submit_shares()
        return False

    # Who is who.

    @property
    def leader(self) -> VaultServer:
        """The active node; waits for an election that is going on.

        Raises:
            TimeoutError: There is none, for example because only one node of three is left.

        """
        return wait_until(self.find_leader, f"{self.name} to have a leader", _ELECTION_TIMEOUT_S)

    def find_leader(self) -> VaultServer | None:
        """Return the active node, None if there is none just now.

        A leader that is cut off may go on saying that it is active (seen with OpenBao 2.7): the latest one leads.
        """
        active = [node for node in self.nodes if node.running and node.active]
        return active[0] if len(active) == 1 else max(active, key=_active_since, default=None)

    def _active_port(self) -> int | None:
        with contextlib.suppress(Exception):  # whatever is wrong with a node, it is not one to lead to
            leader = self.find_leader()
            return None if leader is None else leader.public_port
        return None

    @property
    def standbys(self) -> list[VaultServer]:
        """The nodes that are not active."""
        leader = self.leader
        return [node for node in self.nodes if node is not leader]

    def voters(self) -> set[str]:
        """Return the names of all nodes with a vote."""
        found = self.client().read("sys/storage/raft/configuration")["data"]["config"]["servers"]
        return {server["node_id"] for server in found if server["voter"]}

    def wait_until_whole(self) -> None:
        """Wait until every node is unsealed and votes, one leads, and clients are led to it."""
        wait_until(lambda: all(self._unsealed(node) for node in self.nodes), f"{self.name} to be unsealed", 60)
        wait_until(self._is_whole, f"{self.name} to be whole", _ELECTION_TIMEOUT_S)

    def _is_whole(self) -> bool:
        with contextlib.suppress(*_ERRORS):
            leader = self.leader
            if sum(node.active for node in self.nodes) != 1 or self._balancer.target != leader.public_port:
                return False
            # Only a leader that the others follow can write.
            leader.client().write_data("cubbyhole/harness", data={"whole": "yes"})
            return self.voters() == {node.node for node in self.nodes}
        return False

    # Faults.

    def seal(self) -> None:
        """Seal every node; return when they are."""
        for node in self.nodes:
            if not node.sealed:
                # A standby passes a request to seal on to the leader; killed, it comes back sealed.
                node.kill()
                node.start()
            self.timeline.end(node.node, "killed")
        self.timeline.begin(self.name, "sealed")

    def unseal(self) -> None:
        """Unseal every node; return when the cluster is whole."""
        self.wait_until_whole()
        self.timeline.end(self.name, "sealed")

    @contextlib.contextmanager
    def sealed_for_a_while(self) -> Iterator[None]:
        """Seal every node; unseal them at the end whatever happens."""
        self.seal()
        try:
            yield
        finally:
            self.unseal()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Kill -9 every node; start and unseal them at the end whatever happens."""
        with self.without(*self.nodes):
            yield

    @contextlib.contextmanager
    def without(self, *nodes: VaultServer) -> Iterator[None]:
        """Kill -9 some nodes; start and unseal them at the end, and wait until the cluster is whole."""
        deposed = None if len(nodes) < len(self.nodes) / 2 else self.find_leader()
        for node in nodes:
            node.kill()
        try:
            yield
        finally:
            for node in nodes:
                node.start()
            if deposed is not None and deposed not in nodes:
                self._restart_deposed(deposed)
            self.wait_until_whole()

    def _restart_deposed(self, node: VaultServer) -> None:
        """Restart a leader that lost its majority, as operators have to.

        It may never notice (seen with OpenBao 2.7): it goes on saying that it is active, and where it is elected again
        answers some requests with an internal error from then on.
        """
        self.timeline.note(node.node, "restarted, because it lost its majority while it led")
        node.kill()
        node.start()

    @contextlib.contextmanager
    def leader_stopped(self) -> Iterator[VaultServer]:
        """Kill -9 the leader and wait for the next one; the killed one is a standby at the end.

        Yields:
            The new leader.

        """
        old = self.leader
        with self.without(old):
            wait_until(lambda: self._led_by_another(old), f"{self.name} to elect another leader", _ELECTION_TIMEOUT_S)
            yield self.leader

    def _led_by_another(self, old: VaultServer) -> bool:
        return self._led_by_one_of([node for node in self.nodes if node is not old])

    @contextlib.contextmanager
    def removed(self, node: VaultServer) -> Iterator[None]:
        """Take a node out of the cluster; at the end it joins anew, without the data it had."""
        with self.timeline.fault(node.node, "removed from the cluster"):
            if node is self.leader:
                node.kill()
                wait_until(lambda: self._led_by_another(node), f"{self.name} to elect another leader", 60)
            self.client().write_data("sys/storage/raft/remove-peer", data={"server_id": node.node})
            wait_until(lambda: node.node not in self.voters(), f"{node.node} to be removed")
            try:
                yield
            finally:
                node.kill()
                shutil.rmtree(node.folder / "raft")
                node.start()
                self._join(node, self.leader)
                self.wait_until_whole()

    def link(self, here: VaultServer, there: VaultServer) -> Proxy:
        """Return the network from one node to another, for latency and worse between them.

        Raises:
            Unsupported: The cluster was started without Toxiproxy.

        """
        if not self._links:
            raise Unsupported(
                f"{self.name} has no Toxiproxy between its nodes; run `keystore-harness obtain toxiproxy` once"
            )
        return self._links[here, there]

    @contextlib.contextmanager
    def partitioned(self, *nodes: VaultServer) -> Iterator[None]:
        """Cut the network between these nodes and the others, both ways; the cluster is whole again at the end."""
        others = [node for node in self.nodes if node not in nodes]
        leader = self.find_leader()
        deposed = leader if leader in nodes and len(others) > len(self.nodes) / 2 else None
        with contextlib.ExitStack() as cuts:
            cuts.callback(self.wait_until_whole)
            if deposed is not None:
                cuts.callback(self._restart_deposed, deposed)
            for node, other in itertools.product(nodes, others):
                cuts.enter_context(self.link(node, other).refusing())
                cuts.enter_context(self.link(other, node).refusing())
            if len(others) > len(self.nodes) / 2:
                wait_until(lambda: self._led_by_one_of(others), f"{self.name} to be led by the majority", 60)
            yield

    def _led_by_one_of(self, nodes: list[VaultServer]) -> bool:
        leader = self.find_leader()
        return leader in nodes and leader is not None and self._balancer.target == leader.public_port


def _active_since(node: VaultServer) -> str:
    try:
        return str(node.client(token="", timeout_s=5).sys.read_leader_status()["active_time"])
    except (*_ERRORS, KeyError):
        return ""
