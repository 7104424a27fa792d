"""A throw-away certificate authority: server certificates, client certificates, PKCS#12 files."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEAR = dt.timedelta(days=365)


@dataclass(frozen=True)
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: Any = field(repr=False)

    @property
    def certificate_pem(self) -> str:
        """The certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """The private key, unencrypted PKCS#8 PEM."""
        return str(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give a context this pair; Python reads a private key from a file only: this one is memory."""
        memory = os.memfd_create("certificate")
        try:
            os.write(memory, (self.certificate_pem + self.key_pem).encode())
            context.load_cert_chain(f"/proc/self/fd/{memory}")
        finally:
            os.close(memory)

    def pkcs12(
        self,
        password: str | None,
        *,
        encryption: KeySerializationEncryption | None = None,
        name: str = "client",
        chain: tuple[x509.Certificate, ...] = (),
    ) -> bytes:
        """Return the pair as a PKCS#12 file, encrypted as `encryption` says or in the best common way."""
        if encryption is None:
            encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        return pkcs12.serialize_key_and_certificates(
            name.encode(), self.key, self.certificate, list(chain) or None, encryption
        )


class CertificateAuthority:
    """A root, or an authority below one, made anew in memory; nothing of it is meant to outlive a test.

    Args:
        name: Common name of its subject.
        issuer: The root that it is below.

    """

    def __init__(self, name: str = "Throw-away test CA", issuer: CertificateAuthority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        now = dt.datetime.now(dt.UTC)
        self.certificate: x509.Certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + _YEAR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0 if issuer else 1), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                    key_encipherment=False, data_encipherment=False, key_agreement=False,
                    encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(signer.key, hashes.SHA256())
        )  # fmt: skip

    @property
    def pem(self) -> str:
        """The root certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        common_name: str,
        *,
        names: tuple[str, ...] = (),
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
        key: Any = None,
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
        digest: Any = None,
    ) -> Issued:
        """Issue a certificate; without `key` a P-256 key is made for it.

        Args:
            common_name: Common name of the subject.
            names: DNS names and IP addresses for the subject alternative name.
            usage: Extended key usage, or None for none.
            key: The subject's private key.
            not_before: Start of validity, two days ago by default: clocks may jump.
            not_after: End of validity, a year from now by default.
            digest: Digest of the CA's signature, SHA-256 by default.

        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - dt.timedelta(days=2))
            .not_valid_after(not_after or now + _YEAR)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        return Issued(builder.sign(self.key, digest or hashes.SHA256()), key)

    def revocation_list(self, *serials: int) -> str:
        """Return a certificate revocation list, in PEM, with these serial numbers (RFC 5280, section 5)."""
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - dt.timedelta(minutes=1))
            .next_update(now + dt.timedelta(days=1))
        )
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def issue_server(self, *names: str, expired: bool = False, **options: Any) -> Issued:
        """Issue a TLS server certificate for DNS names and IP addresses, or one that ended an hour ago."""
        if expired:
            now = dt.datetime.now(dt.UTC)
            options = {"not_before": now - _YEAR, "not_after": now - dt.timedelta(hours=1), **options}
        return self.issue(names[0], names=names, usage=ExtendedKeyUsageOID.SERVER_AUTH, **options)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
