"""Real Vault-compatible servers that a test can start, seal, kill and heal."""

from keystore_harness.authority import CertificateAuthority
from keystore_harness.landscape import Landscape
from keystore_harness.mailbox import Mailbox
from keystore_harness.ports import free_port, wait_until
from keystore_harness.relay import Relay
from keystore_harness.server import VaultServer
from keystore_harness.service import ServiceProcess

__all__ = [
    "CertificateAuthority",
    "Landscape",
    "Mailbox",
    "Relay",
    "ServiceProcess",
    "VaultServer",
    "free_port",
    "wait_until",
]
