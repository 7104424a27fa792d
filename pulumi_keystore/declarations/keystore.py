"""What a keystore is declared with, and whether it can be right: the offline check of providers, API and CLI."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pulumi_keystore import rules
from pulumi_keystore.clock import now_utc
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate, check_server_ca, decode_file
from pulumi_keystore.declarations.judging import Judgement
from pulumi_keystore.declarations.names import Kind, check_kind, check_mount, check_namespace, check_role
from pulumi_keystore.declarations.tenancy import DEFAULT_MOUNT, Tenancy, default_role
from pulumi_keystore.errors import RuleViolation


@dataclass(frozen=True, slots=True)
class Binding:
    """A declaration that keeps the rules; a legacy keystore has neither address nor certificate."""

    kind: Kind
    address: KeystoreAddress | None = None
    certificate: ClientCertificate | None = None
    server_ca: bytes | None = None
    mount: str = DEFAULT_MOUNT
    role: str = ""
    namespace: str = ""
    """Empty for the root namespace."""

    def tenancy(self, organization: str) -> Tenancy:
        """Return the organization's place on the server."""
        return Tenancy(organization, self.mount, self.role, self.namespace)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a keystore is declared with, as it came; certificate and password are in no repr.

    Attributes:
        kind: provider, self-administered or legacy.
        address: https://HOST:PORT.
        certificate: Base64 of a PKCS#12 file.
        certificate_password: Its export password.
        server_ca: CA certificates in PEM; None for the public CAs.
        mount: KV mount; archive-keys by default.
        role: Certificate role; keystore-ORGANIZATION by default.
        namespace: Namespace that mount and role are in; the root namespace by default.

    """

    kind: str
    address: str | None = None
    certificate: str | None = field(default=None, repr=False)
    certificate_password: str | None = field(default=None, repr=False)
    server_ca: str | None = None
    mount: str | None = None
    role: str | None = None
    namespace: str | None = None

    def judge(self, organization: str, certificate: ClientCertificate | None = None) -> Binding:
        """Apply every rule; nothing is looked up. A `certificate` that is in use already needs no file.

        Raises:
            RuleViolation: Of the first property that breaks a rule.

        """
        kind = check_kind(self.kind)
        if kind == Kind.LEGACY:
            self._check_legacy()
            return Binding(Kind.LEGACY)
        return Binding(
            kind,
            self._address(),
            certificate or self._certificate(organization),
            check_server_ca(self.server_ca),
            check_mount(self.mount or DEFAULT_MOUNT),
            check_role(self.role or default_role(organization)),
            check_namespace(self.namespace or ""),
        )

    def problems(self, unknown: Collection[str] = ()) -> tuple[list[RuleViolation], list[str]]:
        """Apply every rule that can be applied; return all violations, and warnings.

        Args:
            unknown: Properties whose value is not known yet, which are not judged.

        """
        found, warnings = Judgement(unknown), list[str]()

        def certificate() -> None:
            warnings.extend(self._certificate().warnings)

        found.attempt(lambda: check_kind(self.kind), "kind")
        if self.kind == Kind.LEGACY:
            found.attempt(self._check_legacy, "address", "certificate")
            return found.violations, warnings
        found.attempt(self._address, "address")
        found.attempt(certificate, "certificate", "certificate_password")
        found.attempt(lambda: check_server_ca(self.server_ca), "server_ca")
        found.attempt(lambda: check_mount(self.mount or DEFAULT_MOUNT), "mount")
        if self.role:
            role = self.role
            found.attempt(lambda: check_role(role), "role")
        found.attempt(lambda: check_namespace(self.namespace or ""), "namespace")
        return found.violations, warnings

    def _check_legacy(self) -> None:
        if self.address or self.certificate:
            raise rules.LEGACY_ALONE.violation("a legacy keystore has no address and no certificate")

    def _address(self) -> KeystoreAddress:
        if not self.address:
            raise rules.ADDRESS_SCHEME.violation("the address is missing")
        return KeystoreAddress.parse(self.address)

    def _certificate(self, owner: str = "") -> ClientCertificate:
        if not self.certificate:
            raise rules.CERTIFICATE_FORMAT.violation("the certificate is missing")
        return ClientCertificate.load(decode_file(self.certificate), self.certificate_password, now_utc(), owner)
