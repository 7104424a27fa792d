"""Real Vault-compatible servers that a test can start, seal, kill and heal."""

from keystore_harness.ca import CertificateAuthority
from keystore_harness.cluster import VaultCluster
from keystore_harness.errors import HarnessError, Unsupported
from keystore_harness.existing import ExistingServer
from keystore_harness.line import Line
from keystore_harness.mailbox import Mailbox
from keystore_harness.network import Toxiproxy
from keystore_harness.ports import free_port, wait_until
from keystore_harness.server import VaultServer
from keystore_harness.service import ServiceProcess
from keystore_harness.tenancy import Tenancy
from keystore_harness.testbed import Testbed
from keystore_harness.timeline import Timeline

__all__ = [
    "CertificateAuthority",
    "ExistingServer",
    "HarnessError",
    "Line",
    "Mailbox",
    "ServiceProcess",
    "Tenancy",
    "Testbed",
    "Timeline",
    "Toxiproxy",
    "Unsupported",
    "VaultCluster",
    "VaultServer",
    "free_port",
    "wait_until",
]
