"""The policies of pulumi-keystore as a Pulumi policy pack: the rules of the providers, and those on a stack as a whole.

What each policy judges is in `pulumi_keystore.policy`; here it only gets the names and levels that Pulumi knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Secret,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, UnknownValueError

from pulumi_keystore import rules
from pulumi_keystore.policy.declared import DYNAMIC, SECRETS, Declared, kind_of, of_inputs
from pulumi_keystore.policy.policies import Finding, Settings, check

__all__ = ["NAME", "pack", "policies"]

NAME: Final = "keystore"
_ALONE: Final = (
    rules.NOT_CHECKED,
    rules.CERTIFICATE_EXPIRES_SOON,
    rules.MONITOR_HAS_RECIPIENTS,
    rules.MONITOR_IN_TIME,
    rules.MIGRATION_NOTIFIES,
    rules.KEYSTORE_PROTECTED,
)
"""Policies that need to see one resource alone."""
_ENFORCED: Final = {
    rules.Severity.ERROR: EnforcementLevel.MANDATORY,
    rules.Severity.WARNING: EnforcementLevel.ADVISORY,
    rules.Severity.NOTE: EnforcementLevel.ADVISORY,
}
_SEVERITY: Final = {
    rules.Severity.ERROR: Severity.HIGH,
    rules.Severity.WARNING: Severity.MEDIUM,
    rules.Severity.NOTE: Severity.LOW,
}
_NUMBER: Final = {"type": "integer", "minimum": 1}
_CONFIG: Final = {
    rules.CERTIFICATE_EXPIRES_SOON: PolicyConfigSchema(
        {"certificate_days": {**_NUMBER, "default": Settings().certificate_days}}
    ),
    rules.MONITOR_IN_TIME: PolicyConfigSchema(
        {
            "offline_minutes": {**_NUMBER, "default": Settings().offline_minutes},
            "repeat_hours": {**_NUMBER, "default": Settings().repeat_hours},
        }
    ),
}


def pack() -> PolicyPack:
    """Register the policies with the engine."""
    return PolicyPack(NAME, policies(), description="Mistakes with keystores, found before they happen.")


def policies() -> list[Any]:
    """Return every policy: one for each rule on an input, one for what cannot be judged, and those on declarations."""
    return [_made(rule) for rule in rules.RULES.values() if rule.id not in _NEVER_DECLARED]


_NEVER_DECLARED: Final = ("KS035", "KS036")
"""What archive keys are judged by: they are in no program."""


def _made(rule: rules.Rule) -> Any:
    if rule is rules.NO_SECRETS_IN_CLEAR:
        return _secrets(rule)
    if not rule.is_policy or rule in _ALONE:
        return _resource_policy(rule)
    return _stack_policy(rule)


def _described(rule: rules.Rule) -> dict[str, Any]:
    """Return what Pulumi shows of a policy."""
    return {
        "name": rule.name,
        "description": f"{rule.id}: expects {rule.expects}",
        "severity": _SEVERITY[rule.severity],
        "remediation_steps": rule.remedy,
        "url": rules.page(rule.id),
        "display_name": rule.id,
    }


def _resource_policy(rule: rules.Rule) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        declared = _declared(args.resource_type, args.name, args.props, args.opts.protect)
        if declared is not None:
            _report(_judged([declared], _settings(args)), rule, lambda message, _: report(message))

    return ResourceValidationPolicy(
        validate=validate,
        remediate=_usual_timings if rule is rules.MONITOR_IN_TIME else None,
        enforcement_level=_ENFORCED[rule.severity],
        config_schema=_CONFIG.get(rule),
        **_described(rule),
    )


def _stack_policy(rule: rules.Rule) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        urns: dict[str, str] = {}
        declared = []
        for resource in args.resources:
            one = _of_resource(resource)
            if one is not None:
                declared.append(one)
                urns[f"{one.kind} {one.name}"] = resource.urn
        found = _judged(declared, _settings(args))
        _report(found, rule, lambda message, finding: report(message, urns.get(finding.resource)))

    return StackValidationPolicy(
        validate=validate,
        enforcement_level=_ENFORCED[rule.severity],
        config_schema=_CONFIG.get(rule),
        **_described(rule),
    )


def _secrets(rule: rules.Rule) -> ResourceValidationPolicy:
    """Whether a value is a secret is told to remediations alone: this one makes a secret of what is none."""

    def remediate(args: ResourceValidationArgs) -> Mapping[str, Any] | None:
        raw = _sent(args.props)
        kind = kind_of(args.resource_type, raw) or ""
        plain = [name for name in SECRETS.get(kind, ()) if isinstance(raw.get(name), str)]
        return {**raw, **{name: Secret(raw[name]) for name in plain}} if plain else None

    return ResourceValidationPolicy(
        remediate=remediate,
        enforcement_level=EnforcementLevel.REMEDIATE,
        **_described(rule),
    )


def _sent(props: Any) -> Mapping[str, Any]:
    """Return properties as the engine sent them, secrets as such: under every proxy, which hides that they are."""
    while type(props) is not dict:
        props = props["__target"]
    return cast("Mapping[str, Any]", props)


def _usual_timings(args: ResourceValidationArgs) -> Mapping[str, Any] | None:
    """Bring weaker timings back to the strongest that is not asked for; used where a team sets "remediate"."""
    settings = _settings(args)
    if kind_of(args.resource_type, _sent(args.props)) != "monitor":
        return None
    changed = {}
    for name, most in (("offline_minutes", settings.offline_minutes), ("repeat_hours", settings.repeat_hours)):
        try:
            value = args.props.get(name)
        except UnknownValueError:
            continue
        if isinstance(value, int | float) and value > most:
            changed[name] = most
    return {**_sent(args.props), **changed} if changed else None


def _settings(args: ResourceValidationArgs | StackValidationArgs) -> Settings:
    given = args.get_config() or {}
    names = ("certificate_days", "offline_minutes", "repeat_hours")
    return Settings(**{name: int(given[name]) for name in names if name in given})


def _of_resource(resource: PolicyResource) -> Declared | None:
    return _declared(resource.resource_type, resource.name, resource.props, resource.opts.protect)


def _declared(resource_type: str, name: str, props: Mapping[str, Any], protect: bool | None) -> Declared | None:
    if DYNAMIC not in resource_type:
        return None  # of others: their inputs, which may be many, are not looked at
    inputs = {key: _value(props, key) for key in props}
    kind = kind_of(resource_type, inputs)
    if kind is None:
        return None
    one = of_inputs(kind, name, inputs, protected=bool(protect))
    # The engine unwraps secrets before it asks: that a value is seen here does not mean that it is in clear.
    return Declared(one.kind, one.name, one.props, one.hidden, frozenset(), one.protected)


def _value(container: Any, key: Any) -> Any:
    """Return a value of a proxy; one that is not known yet as what stands for such values."""
    try:
        value = container[key]
    except UnknownValueError:
        return UNKNOWN_STRING_VALUE
    if isinstance(value, Mapping):
        return {name: _value(value, name) for name in value}
    if not isinstance(value, str) and hasattr(value, "__getitem__") and hasattr(value, "__len__"):
        return [_value(value, index) for index in range(len(value))]
    return value


_last: tuple[str, list[Finding]] | None = None


def _judged(declared: list[Declared], settings: Settings) -> list[Finding]:
    """Judge declarations; the engine asks for each policy anew, and opening a certificate takes a moment."""
    global _last  # noqa: PLW0603 - of the declarations that were judged last
    key = json.dumps(
        [[one.kind, one.name, sorted(one.hidden), one.protected, dict(one.props)] for one in declared]
        + [[settings.certificate_days, settings.offline_minutes, settings.repeat_hours]],
        sort_keys=True,
        default=str,
    )
    if _last is None or _last[0] != key:
        _last = key, check(declared, settings)
    return _last[1]


def _report(found: Iterable[Finding], rule: rules.Rule, report: Callable[[str, Finding], None]) -> None:
    for finding in found:
        if finding.rule is rule:
            report(f"{finding.message} [{rule.id}]; {finding.remedy}", finding)
