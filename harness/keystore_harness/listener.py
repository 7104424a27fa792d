"""A port of a server, and the certificate that is shown there."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from keystore_harness.ca import Issued


@dataclass(frozen=True)
class Listener:
    """Where a server listens on 127.0.0.1.

    Attributes:
        certificate: The file of the certificate that it shows, in PEM.
        port: The port.
        cluster_port: The port beside it on which it speaks to other nodes of its cluster.

    """

    certificate: Path
    port: int
    cluster_port: int

    @property
    def key(self) -> Path:
        """The file of the certificate's key."""
        return self.certificate.with_suffix(".key")

    @property
    def configuration(self) -> dict[str, str]:
        """What the server's configuration has to say of it."""
        return {
            "address": f"127.0.0.1:{self.port}",
            "cluster_address": f"127.0.0.1:{self.cluster_port}",
            "tls_cert_file": str(self.certificate),
            "tls_key_file": str(self.key),
        }

    def write(self, certificate: Issued) -> None:
        """Write what the server reads when it starts or is told to: a throw-away key, for this user alone."""
        self.restore(certificate.certificate_pem, certificate.key_pem)

    def kept(self) -> tuple[str, str]:
        """Return certificate and key, for `restore`."""
        return self.certificate.read_text(), self.key.read_text()

    def restore(self, certificate: str, key: str) -> None:
        """Write back what was kept."""
        self.certificate.write_text(certificate)
        self.key.touch(mode=0o600)
        self.key.write_text(key)

    @property
    def shows(self) -> str:
        """The certificate in PEM that it shows now."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as raw:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # it is looked at, not trusted
            with context.wrap_socket(raw) as secure:
                return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")
