"""Every error this project raises on purpose.

::

    KeystoreError
    ├── InvalidInput            what was given cannot be right (HTTP 422)
    │   ├── RuleViolation       … by a rule with an id, for example KS004
    │   └── TooLarge            more than the service takes (413)
    ├── NotAuthenticated        no token, or one that is unknown, expired or revoked (401)
    ├── NotAllowed              the token's role may not do this (403)
    ├── NotFound                no such organization, keystore, migration … (404)
    ├── Conflict                right in itself, refused in the present state (409)
    │   ├── ManagedElsewhere    another Pulumi resource manages it now; it stays
    │   └── RecoveryNeeded      the keystore knows more than the database; nothing is changed until it is recovered
    ├── InMaintenance           a migration is running; keys may be read, not written (423)
    ├── KeystoreFault           a keystore did not do what was asked (424)
    │   ├── HostUnavailable     DNS, connect, time-out, TLS, 5xx, sealed
    │   │   ├── AnotherCluster  another Vault cluster answers under the name
    │   │   └── Overloaded      503 from a server that is not sealed
    │   │       └── RateLimited  429: it works, and asks for fewer requests
    │   ├── UnableToAuthenticate  the certificate login is refused
    │   │   └── AccessDenied    logged in, but the role may not do it
    │   └── Unsuitable          reachable, but not set up as an archive-key keystore
    ├── TooManyRequests         more at a time than one may have (429)
    └── ServiceUnavailable      the control plane cannot be reached, or failed (503)

An error is one line: what was found, what is expected, and a hint with the next step. No message ever holds
a secret. Over HTTP an error travels as a problem document (RFC 9457).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from pulumi_keystore.causes import Cause

PROBLEM_TYPES: Final = "urn:pulumi-keystore:error:"
"""What the `type` of each problem document begins with."""


class KeystoreError(Exception):
    """Base of all expected errors.

    Args:
        summary: What went wrong, in one line without a final dot.
        hint: What to do next, in one line.
        prop: The input property that is to blame, in snake_case.
        rule: The id of the rule that was broken.

    """

    status: ClassVar[int] = 500
    """HTTP status that the API answers with."""
    code: ClassVar[str] = "error"
    """Stable machine-readable name of the error; the `type` of the problem document ends with it."""

    def __init__(
        self, summary: str, *, hint: str | None = None, prop: str | None = None, rule: str | None = None
    ) -> None:
        super().__init__(summary)
        self.summary = _one_line(summary)
        self.hint = _one_line(hint) if hint else None
        self.prop = prop
        self.rule = rule

    def __str__(self) -> str:
        rule = f" [{self.rule}]" if self.rule else ""
        return f"{self.summary}{rule}" + (f"; {self.hint}" if self.hint else "")

    def to_problem(self) -> dict[str, Any]:
        """Return the error as a problem document (RFC 9457)."""
        document = {
            "type": PROBLEM_TYPES + self.code,
            "title": self.code.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.summary,
            "hint": self.hint,
            "property": self.prop,
            "rule": self.rule,
        }
        return {name: value for name, value in document.items() if value is not None}


class InvalidInput(KeystoreError):  # noqa: N818 - the tree reads better without "Error" on each leaf
    """What was given cannot be right, whatever the state of the world."""

    status = 422
    code = "invalid-input"


class RuleViolation(InvalidInput):
    """An input breaks a rule of `pulumi_keystore.rules`."""

    code = "rule-violation"


class NotAuthenticated(KeystoreError):  # noqa: N818
    """The request carries no valid API token."""

    status = 401
    code = "not-authenticated"


class NotAllowed(KeystoreError):  # noqa: N818
    """The token is valid, but its role or organization does not allow this."""

    status = 403
    code = "not-allowed"


class NotFound(KeystoreError):  # noqa: N818
    """There is no such thing, or not in an organization the token may see."""

    status = 404
    code = "not-found"


class Conflict(KeystoreError):  # noqa: N818
    """Refused in the present state; the hint says what has to happen first."""

    status = 409
    code = "conflict"


class ManagedElsewhere(Conflict):
    """Another Pulumi resource manages the object than the one that asks for its deletion."""

    code = "managed-elsewhere"


class RecoveryNeeded(Conflict):
    """A keystore knows more than the database: it was restored, or another service works with the same keystore."""

    code = "recovery-needed"


class InMaintenance(KeystoreError):  # noqa: N818
    """The organization's keys are migrating: they can be read, not written."""

    status = 423
    code = "in-maintenance"


class KeystoreFault(KeystoreError):  # noqa: N818
    """A keystore could not do what was asked of it.

    Args:
        summary: As of every error; so is `hint`.
        cause: Why, where that is known better than by the class.

    """

    status = 424
    code = "keystore-fault"
    reason: ClassVar[str] = "Host unavailable"
    """The reason shown to people (contract: Connection test)."""
    usual: ClassVar[Cause] = Cause.FAILING
    """Why such a fault happens, as far as the class knows."""

    def __init__(
        self,
        summary: str,
        *,
        hint: str | None = None,
        prop: str | None = None,
        rule: str | None = None,
        cause: Cause | None = None,
    ) -> None:
        super().__init__(summary, hint=hint, prop=prop, rule=rule)
        self.cause = cause or self.usual


class HostUnavailable(KeystoreFault):
    """DNS, connection, time-out, TLS, 5xx, sealed, or an answer that no Vault server gives."""

    code = "host-unavailable"


class AnotherCluster(HostUnavailable):
    """Another Vault cluster than the one that was proved answers under the keystore's name."""

    code = "another-cluster"
    usual = Cause.ANOTHER_CLUSTER


class Overloaded(HostUnavailable):
    """The server is up and asks for fewer requests."""

    code = "overloaded"
    usual = Cause.OVERLOADED


class RateLimited(Overloaded):
    """The server works, and a quota of it asks for fewer requests."""

    code = "rate-limited"


class UnableToAuthenticate(KeystoreFault):
    """The server answers and refuses the certificate or the role."""

    code = "unable-to-authenticate"
    usual = Cause.LOGIN_REFUSED
    reason = "Unable to authenticate"


class AccessDenied(UnableToAuthenticate):
    """The login works, but the role's policy does not allow the request."""

    code = "access-denied"
    usual = Cause.POLICY


class Unsuitable(KeystoreFault):
    """The server works, but its mount, policy or contents do not suit an archive-key keystore."""

    status = 409
    code = "unsuitable"
    usual = Cause.MOUNT
    reason = "Unable to authenticate"


class TooLarge(InvalidInput):
    """A request is larger than the service takes."""

    status = 413
    code = "too-large"


class TooManyRequests(KeystoreError):  # noqa: N818
    """More is asked for than one organization, or all of them together, may have at a time."""

    status = 429
    code = "too-many-requests"


class ServiceUnavailable(KeystoreError):  # noqa: N818
    """The control plane cannot be reached or could not answer."""

    status = 503
    code = "service-unavailable"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _tree(base: type[KeystoreError]) -> dict[str, type[KeystoreError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= _tree(child)
    return found


def from_problem(document: dict[str, Any]) -> KeystoreError:
    """Return the error that a problem document describes; unknown types become `ServiceUnavailable`."""
    code = str(document.get("type")).removeprefix(PROBLEM_TYPES)
    return _tree(KeystoreError).get(code, ServiceUnavailable)(
        str(document.get("detail") or document.get("title") or "the service gave no reason"),
        hint=document.get("hint"),
        prop=document.get("property"),
        rule=document.get("rule"),
    )
