"""The `Keystore` resource."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pulumi
from pulumi.dynamic import CheckResult, CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from pulumi_keystore.clock import now_utc
from pulumi_keystore.declarations.address import KeystoreAddress
from pulumi_keystore.declarations.certificate import ClientCertificate, decode_file, expiry_warnings
from pulumi_keystore.declarations.keystore import Declaration
from pulumi_keystore.declarations.names import check_name, check_organization
from pulumi_keystore.errors import Conflict, InvalidInput, ManagedElsewhere, NotFound, RuleViolation
from pulumi_keystore.resources.provider import (
    KeystoreProvider,
    changed,
    failure,
    is_unknown,
    mark_of,
    new_mark,
    one_line,
    tell,
    unknown_properties,
    with_ours,
)

DECLARED: Final = (
    "kind", "address", "certificate", "certificate_password", "server_ca", "namespace", "mount", "role"
)  # fmt: skip
FOUND: Final = ("address_display", "certificate_fingerprint", "certificate_not_after", "kv_version", "cluster_id")
SECRETS: Final = ("certificate", "certificate_password")


class KeystoreResourceProvider(KeystoreProvider):
    """Dynamic provider of `Keystore`; its id is ORGANIZATION/NAME."""

    @one_line
    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Apply the rules KS0xx to what is known, without asking anybody; also in preview.

        A certificate that is in use is not opened again, which takes a moment by design; `diff` tells when it ends.
        """
        unknown = unknown_properties(news)
        if news.get("certificate") and all(olds.get(name) == news.get(name) for name in ("kind", *SECRETS)):
            unknown.update(SECRETS)
        violations, warnings = _declaration(news).problems(unknown)
        for name, judge in (("organization", check_organization), ("name", check_name)):
            try:
                if name not in unknown:
                    judge(str(news.get(name)))
            except RuleViolation as violation:
                violations.append(violation)
        for warning in warnings:
            tell(f"warning: {news.get('name')}: {warning}")
        inputs = dict(news)
        address = news.get("address")
        if isinstance(address, str) and not is_unknown(address) and not any(v.prop == "address" for v in violations):
            # One spelling of one address, so that a trailing slash or a capital letter is no change.
            inputs["address"] = str(KeystoreAddress.parse(address))
        return CheckResult(inputs, [failure(violation, SECRETS) for violation in violations])

    @one_line
    def diff(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another organization, name or kind is another keystore; all else is a validated swap."""
        replaces = changed(olds, news, ("organization", "name", "kind"))
        edits = changed(olds, news, DECLARED)
        if replaces:
            tell(f"{id_}: another {' and '.join(replaces)} is another keystore: this one will be deleted")
        elif edits:
            tell(f"{id_}: updates in place, no keys move: {'; '.join(_edits(olds, news, edits))}")
            tell(f"{id_}: the new settings take effect only after they pass verification; otherwise nothing changes")
        if "certificate" not in edits and olds.get("certificate_not_after"):
            for warning in expiry_warnings(datetime.fromisoformat(str(olds["certificate_not_after"])), now_utc()):
                tell(f"warning: {id_}: {warning}")
        # Without a verdict of ours the engine compares the inputs and shows each change.
        return DiffResult(changes=True, replaces=replaces) if replaces else DiffResult()

    @one_line
    def create(self, props: dict[str, Any]) -> CreateResult:
        """Let the service prove and register the keystore; safe to repeat after a crash."""
        organization, name, mark = str(props["organization"]), str(props["name"]), new_mark()
        adopt = bool(props.get("adopt"))
        with self.client() as service:
            found = service.put_keystore(organization, name, _body(props), adopt=adopt, mark=mark)
        return CreateResult(f"{organization}/{name}", {**props, **_found(found), "mark": mark})

    @one_line
    def update(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Let the service prove the new pair and swap it in; on any failure the old one stays in use."""
        organization, name = id_.split("/", 1)
        mark = mark_of(olds) or new_mark()
        with self.client() as service:
            found = service.swap_keystore(organization, name, _body(news), mark=mark)
        return UpdateResult({**news, **_found(found), "mark": mark})

    @one_line
    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Return what the service has registered, so that changes made elsewhere are shown as drift."""
        organization, name = id_.split("/", 1)
        with self.client() as service:
            try:
                found = service.keystore(organization, name)
            except NotFound:
                return ReadResult(None, {})
        outs = {**props, **_found(found)}
        outs |= {"address": found["address"], "kind": found["kind"]}
        for given, value in (("server_ca", found["server_ca"]), ("mount", found["mount"]), ("role", found["role"])):
            # A default that the service filled in is no change of what was left out.
            if props.get(given) is not None and _pem(props[given]) != _pem(value):
                outs[given] = value
        # Unlike those, the root namespace is what is meant where none is given.
        if (props.get("namespace") or "") != found["namespace"]:
            outs["namespace"] = found["namespace"]
        if found["certificate_fingerprint"] != props.get("certificate_fingerprint"):
            tell(f"{id_}: the certificate was changed outside Pulumi, SHA-256 {found['certificate_fingerprint']}")
            outs["certificate"] = f"changed outside Pulumi, SHA-256 {found['certificate_fingerprint']}"
        inputs = {name: outs.get(name) for name in ("organization", "name", "adopt", *DECLARED)}
        return ReadResult(id_, outs, inputs)

    @one_line
    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Let the service forget the keystore; refused while it is active and holds keys.

        One that another resource manages by now, as after this one was renamed, stays.
        """
        organization, name = id_.split("/", 1)
        with self.client() as service:
            try:
                service.delete_keystore(organization, name, mark=mark_of(props))
            except NotFound:
                return
            except ManagedElsewhere as reason:
                tell(f"warning: {reason.summary}")
            except Conflict:
                # Pulumi deletes what depends on a resource before it, and asks no provider in a preview of that.
                tell(
                    f"{id_}: monitors and migrations that were declared on it have left the state, and `pulumi up` "
                    "declares them again; monitors that were given the Keystore itself go on meanwhile; with "
                    "opts=pulumi.ResourceOptions(protect=True) nothing is deleted to begin with"
                )
                raise


def _declaration(props: Mapping[str, Any]) -> Declaration:
    known = {name: props.get(name) for name in DECLARED if not is_unknown(props.get(name))}
    texts = {name: None if value is None else str(value) for name, value in known.items()}
    return Declaration(**{"kind": "", **texts})  # type: ignore[arg-type]


def _edits(olds: Mapping[str, Any], news: Mapping[str, Any], changes: Collection[str]) -> Iterator[str]:
    """Say in people's words what changes; secrets are told by what may be seen of them."""
    for prop in changes:
        if prop == "certificate":
            yield _certificate_edit(olds, news)
        elif prop in ("certificate_password", "server_ca"):
            yield f"another {prop}"
        elif prop == "namespace":
            yield f"{prop} {olds.get(prop) or 'root'} → {news.get(prop) or 'root'}"
        else:
            yield f"{prop} {olds.get(prop) or 'by default'} → {news.get(prop) or 'by default'}"


def _certificate_edit(olds: Mapping[str, Any], news: Mapping[str, Any]) -> str:
    password = news.get("certificate_password")
    try:
        new = ClientCertificate.load(
            decode_file(str(news["certificate"])), None if password is None else str(password), now_utc()
        )
    except InvalidInput:
        return "another certificate"  # not known yet, or told by check
    if new.fingerprint == olds.get("certificate_fingerprint"):
        return "the same certificate from another file"
    until = str(olds.get("certificate_not_after") or "unknown")[:10]
    return f"client certificate expiring {until} → {new.not_after:%Y-%m-%d}"


def _body(props: Mapping[str, Any]) -> dict[str, Any]:
    return {name: props[name] for name in DECLARED if props.get(name) is not None}


def _found(document: Mapping[str, Any]) -> dict[str, Any]:
    for warning in document.get("warnings", ()):
        tell(f"warning: {document['name']}: {warning}")
    return {name: document[name] for name in FOUND}


def _pem(text: Any) -> str:
    return "".join(str(text).split())


class Keystore(Resource, module="keystore", name="Keystore"):
    """A keystore of an organization: a Vault server that holds its users' archive keys.

    The first keystore of an organization becomes the active one; later ones become active by a
    `KeystoreMigration`. Changing `address`, `certificate` or both is a validated swap.

    Args:
        resource_name: Name of the resource in the program.
        organization: Name of the organization.
        kind: provider, self-administered or legacy (a source of migrations only).
        address: https://HOST:PORT with a public DNS name; not for legacy.
        certificate: The PKCS#12 file: its path, its bytes, or its base64. Kept secret.
        certificate_password: Its export password. Kept secret.
        server_ca: The CAs that the server is verified with: path of a PEM file, or its text; the public CAs by default.
        name: Name of the keystore; the resource's name by default.
        mount: KV mount on the server; archive-keys by default.
        role: Certificate role on the server; keystore-ORGANIZATION by default.
        namespace: Namespace that mount and role are in; the root namespace by default.
        adopt: Take over a keystore of this name that is registered already, changing it to what is declared.
        opts: Pulumi's options.

    """

    organization: pulumi.Output[str]
    name: pulumi.Output[str]
    kind: pulumi.Output[str]
    address: pulumi.Output[str | None]
    address_display: pulumi.Output[str | None]
    certificate_fingerprint: pulumi.Output[str | None]
    """SHA-256 of the client certificate in use, in hex."""
    certificate_not_after: pulumi.Output[str | None]
    """When the client certificate expires, ISO 8601."""
    kv_version: pulumi.Output[int | None]
    cluster_id: pulumi.Output[str | None]

    def __init__(
        self,
        resource_name: str,
        organization: pulumi.Input[str],
        kind: pulumi.Input[str],
        address: pulumi.Input[str] | None = None,
        certificate: pulumi.Input[Any] | None = None,
        certificate_password: pulumi.Input[str] | None = None,
        server_ca: pulumi.Input[Any] | None = None,
        name: pulumi.Input[str] | None = None,
        mount: pulumi.Input[str] | None = None,
        role: pulumi.Input[str] | None = None,
        namespace: pulumi.Input[str] | None = None,
        adopt: pulumi.Input[bool] = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        secret = pulumi.Output.secret
        props: dict[str, Any] = {
            "organization": organization,
            "name": resource_name if name is None else name,
            "kind": kind,
            "address": address,
            "certificate": None if certificate is None else secret(certificate).apply(_encoded),
            "certificate_password": None if certificate_password is None else secret(certificate_password),
            "server_ca": pulumi.Output.from_input(server_ca).apply(certificates),
            "namespace": namespace,
            "mount": mount,
            "role": role,
            "adopt": adopt,
            **dict.fromkeys(FOUND),
        }
        super().__init__(KeystoreResourceProvider(), resource_name, props, with_ours(opts, SECRETS))


def _encoded(certificate: Any) -> str:
    """Return the base64 of a PKCS#12 file given as path, asset, bytes or base64."""
    if isinstance(certificate, pulumi.FileAsset):
        certificate = Path(certificate.path)
    if isinstance(certificate, Path):
        certificate = _read(certificate, "certificate")
    return b64encode(certificate).decode() if isinstance(certificate, bytes) else str(certificate)


def certificates(given: Any, prop: str = "server_ca") -> str | None:
    """Return the PEM text of CAs given as path or text.

    Raises:
        pulumi.RunError: The file cannot be read.

    """
    if isinstance(given, Path):
        return _read(given, prop).decode(errors="replace")
    return None if given is None else str(given)


def _read(path: Path, prop: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise pulumi.RunError(f"{prop}: {path} cannot be read ({error.strerror}); give the path of a file") from None
