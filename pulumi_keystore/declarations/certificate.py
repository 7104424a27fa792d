"""The client certificate of an organization: PKCS#12 in, PEM in memory out (contract: Certificate)."""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from pulumi_keystore import rules
from pulumi_keystore.declarations import pkcs12, pkcs12_inspection
from pulumi_keystore.declarations.expiry import WARN_BEFORE_EXPIRY
from pulumi_keystore.errors import RuleViolation

_MIN_RSA_BITS: Final = 2048
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_DIGESTS: Final = ("sha224", "sha256", "sha384", "sha512", "sha3-224", "sha3-256", "sha3-384", "sha3-512")


_MOST_CAS: Final = 100
_LONGEST_CA: Final = 256 * 1024
_UNREADABLE: Final = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What the parser of certificates raises, besides of what it says, where it is asked for a part it cannot read."""


_LONGEST_CHAIN: Final = 20
"""Certificates of CAs beside the client's own: they are sent with each connection."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate with its private key, judged and ready for mutual TLS.

    The private key is held in memory only and is in no repr.
    """

    certificate_pem: bytes = field(repr=False)
    """The leaf and after it the rest of the chain."""
    key_pem: bytes = field(repr=False)
    """The private key, unencrypted PKCS#8."""
    subject: str
    fingerprint: str
    """SHA-256 of the leaf in DER, 64 hex digits."""
    not_before: datetime
    not_after: datetime
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(cls, data: bytes, password: str | None, now: datetime, owner: str = "") -> ClientCertificate:
        """Open a PKCS#12 file and judge what is in it.

        Args:
            data: The file, recognised by its content alone.
            password: The export password; None and an empty one are the same.
            now: The moment at which the certificate has to be valid, with a time zone.
            owner: The organization whose file it is, for which its others wait.

        Raises:
            RuleViolation: KS010 to KS019.
            TooManyRequests: Other files take too long to open.

        """
        seen = pkcs12_inspection.inspect(data)
        try:
            contents = pkcs12.open_file(data, password, seen.iterations, owner)
        except RuleViolation as refusal:
            if password and not seen.encrypted and refusal.rule == rules.CERTIFICATE_PASSWORD.id:
                raise rules.CERTIFICATE_PASSWORD.violation("a password was given but the file has none") from None
            raise
        certificate, others = _leaf(contents, now)
        if len(others) > _LONGEST_CHAIN:
            raise rules.CERTIFICATE_SIZE.violation(f"the file holds {len(others) + 1} certificates")
        _check_strength(certificate)
        _check_usage(certificate)
        _check_validity(certificate, now)
        warnings = []
        if seen.old_ciphers:
            old = " and ".join(sorted(seen.old_ciphers))
            warnings.append(f"{rules.CERTIFICATE_OLD_CIPHER.id}: the file is encrypted with {old}; export it again")
        if password and not seen.encrypted:
            # Its password only shows whether it was changed.
            text = "the private key in the file is not encrypted; export it again"
            warnings.append(f"{rules.CERTIFICATE_OLD_CIPHER.id}: {text}")
        warnings += expiry_warnings(certificate.not_valid_after_utc, now)
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in (certificate, *others))
        return cls(
            certificate_pem=pem,
            key_pem=contents.key,
            subject=_subject(certificate),
            fingerprint=certificate.fingerprint(SHA256()).hex(),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            warnings=tuple(warnings),
        )

    @classmethod
    def from_pem(cls, certificate_pem: bytes, key_pem: bytes) -> ClientCertificate:
        """Return a certificate that `load` accepted before, from what was kept of it."""
        leaf = x509.load_pem_x509_certificate(certificate_pem)  # the first
        return cls(
            certificate_pem=certificate_pem,
            key_pem=key_pem,
            subject=_subject(leaf),
            fingerprint=leaf.fingerprint(SHA256()).hex(),
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
        )


def decode_file(text: str) -> bytes:
    """Return the bytes of a PKCS#12 file given as base64 text.

    Raises:
        RuleViolation: KS010 where the text is not base64, KS016 where it is too long.

    """
    if len(text) > 2 * pkcs12_inspection.MAX_SIZE:
        raise rules.CERTIFICATE_SIZE.violation(f"the file has about {len(text) * 3 // 4:,} bytes")
    try:
        return b64decode("".join(text.split()), validate=True)
    except (Base64Error, ValueError):
        raise rules.CERTIFICATE_FORMAT.violation("this is neither a PKCS#12 file nor the base64 of one") from None


def check_server_ca(pem: str | None) -> bytes | None:
    """Return the CA certificates a server is verified with, or None for the public CAs.

    Raises:
        RuleViolation: KS025 where the text is not PEM certificates of CAs, or holds a private key.

    """
    if not pem or not pem.strip():
        return None
    if "PRIVATE KEY" in pem:
        raise rules.SERVER_CA.violation("the text holds a private key")
    # Each connection reads them anew.
    if len(pem) > _LONGEST_CA or pem.count("-----BEGIN") > _MOST_CAS:
        raise rules.SERVER_CA.violation(f"there are more than {_MOST_CAS} certificates, or {_LONGEST_CA:,} bytes")
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
        for certificate in certificates:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            if not constraints.ca:
                raise rules.SERVER_CA.violation("a certificate in it is not a CA's")
            certificate.public_key()
            _ = certificate.signature_hash_algorithm
    except (*_UNREADABLE, x509.ExtensionNotFound):
        raise rules.SERVER_CA.violation("the text is not CA certificates in PEM") from None
    return b"".join(c.public_bytes(Encoding.PEM) for c in certificates)


def _subject(certificate: x509.Certificate) -> str:
    """Return the subject as people read it (RFC 4514)."""
    try:
        return certificate.subject.rfc4514_string()
    except ValueError:
        # A T61String, say: servers read it, and we do not have to.
        return f"serial number {certificate.serial_number:x}"


def _leaf(contents: pkcs12.Contents, now: datetime) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """Return the certificate whose public key is the private key's, and the others.

    Of several, as after a renewal with the same key, it is the one that is valid now, and longest.
    """
    try:
        key = load_pem_private_key(contents.key, None)
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pems = (contents.certificate, *contents.others)
        certificates = [x509.load_pem_x509_certificate(pem) for pem in pems]
        ours = [
            c
            for c in certificates
            if hmac.compare_digest(c.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), public)
        ]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise rules.CERTIFICATE_ALGORITHM.violation("the key or certificate is of an unsupported kind") from None
    if not ours:
        raise rules.CERTIFICATE_PAIR.violation("the private key does not belong to the certificate")
    leaf = max(ours, key=lambda c: (c.not_valid_before_utc <= now <= c.not_valid_after_utc, c.not_valid_after_utc))
    return leaf, [c for c in certificates if c not in ours]


def _check_strength(certificate: x509.Certificate) -> None:
    public = certificate.public_key()
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        raise rules.CERTIFICATE_ALGORITHM.violation("the certificate is signed with an unknown algorithm") from None
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < _MIN_RSA_BITS:
            raise rules.CERTIFICATE_ALGORITHM.violation(f"the key is RSA of {public.key_size} bits")
    elif isinstance(public, ec.EllipticCurvePublicKey):
        if public.curve.name not in _CURVES:
            raise rules.CERTIFICATE_ALGORITHM.violation(f"the key is on the curve {public.curve.name}")
    elif not isinstance(public, ed25519.Ed25519PublicKey):
        raise rules.CERTIFICATE_ALGORITHM.violation("the key is of an unsupported kind")
    # Ed25519 and Ed448 signatures name no separate digest.
    if digest is not None and digest.name not in _DIGESTS:
        raise rules.CERTIFICATE_ALGORITHM.violation(f"the certificate is signed with {digest.name.upper()}")


def _check_usage(certificate: x509.Certificate) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    except x509.DuplicateExtension:
        raise rules.CERTIFICATE_FORMAT.violation("the certificate has a duplicate extension") from None
    except _UNREADABLE:
        raise rules.CERTIFICATE_FORMAT.violation("the certificate has an extension that cannot be read") from None
    wanted = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if not wanted & set(usage):
        raise rules.CERTIFICATE_USAGE.violation("the certificate is not for TLS clients")


def _check_validity(certificate: x509.Certificate, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise rules.CERTIFICATE_VALIDITY.violation(f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if now < certificate.not_valid_before_utc:
        raise rules.CERTIFICATE_VALIDITY.violation(f"it is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}")


def expiry_warnings(not_after: datetime, now: datetime) -> list[str]:
    """Return the warning (KS101) of a certificate that ends soon, or has ended."""
    if not_after - now >= WARN_BEFORE_EXPIRY:
        return []
    verb = "expires" if not_after > now else "expired"
    return [f"{rules.CERTIFICATE_EXPIRES_SOON.id}: the certificate {verb} on {not_after.date()}"]
