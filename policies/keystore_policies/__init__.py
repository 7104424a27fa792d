"""The policies of pulumi-keystore as a Pulumi policy pack: the rules of the providers, and those on a stack as a whole.

What each policy judges is in `pulumi_keystore.policy`; here it only gets the names and levels that Pulumi knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

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
from pulumi_keystore.policy.declared import KINDS, SECRETS, Declared, of_inputs
from pulumi_keystore.policy.policies import POLICIES, Finding, Level, Policy, Settings, check

__all__ = ["NAME", "pack", "policies"]

NAME: Final = "keystore"
_ALONE: Final = ("KS101", "KS103", "KS104", "KS105", "KS108")
"""Policies that need to see one resource alone."""
_ENFORCED: Final = {
    Level.ERROR: EnforcementLevel.MANDATORY,
    Level.WARNING: EnforcementLevel.ADVISORY,
    Level.NOTE: EnforcementLevel.ADVISORY,
}
_SEVERITY: Final = {Level.ERROR: Severity.HIGH, Level.WARNING: Severity.MEDIUM, Level.NOTE: Severity.LOW}
_NUMBER: Final = {"type": "integer", "minimum": 1}
_CONFIG: Final = {
    "KS101": PolicyConfigSchema({"certificate_days": {**_NUMBER, "default": Settings().certificate_days}}),
    "KS104": PolicyConfigSchema(
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
    silent = (*_NEVER_DECLARED, *_TOLD_BY_POLICIES)
    made: list[Any] = [_of_rule(rule) for rule in rules.RULES.values() if rule.id not in silent]
    made.append(
        _resource_policy(
            "KS100", "ks100-not-checked", "says which inputs are only known during the update", "", Level.NOTE
        )
    )
    for policy in POLICIES:
        if policy.id == "KS109":
            made.append(_secrets(policy))
        elif policy.id in _ALONE:
            made.append(
                _resource_policy(policy.id, policy.name, f"expects {policy.expects}", policy.remedy, policy.level)
            )
        else:
            made.append(_stack_policy(policy))
    return made


_NEVER_DECLARED: Final = ("KS035", "KS036")
"""What archive keys are judged by: they are in no program."""
_TOLD_BY_POLICIES: Final = ("KS020", "KS032")
"""What KS101 and KS106 tell of everything that is declared."""


def _of_rule(rule: rules.Rule) -> ResourceValidationPolicy:
    level = Level.ERROR if rule.severity is rules.Severity.ERROR else Level.WARNING
    name = f"{rule.id.lower()}-{rule.prop.replace('_', '-')}"
    return _resource_policy(rule.id, name, f"expects {rule.expects}", f"give {rule.expects}", level)


def _resource_policy(number: str, name: str, expects: str, remedy: str, level: Level) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        declared = _declared(args.resource_type, args.name, args.props, args.opts.protect)
        if declared is not None:
            _report(_judged([declared], _settings(args)), number, lambda message, _: report(message))

    return ResourceValidationPolicy(
        name,
        f"{number}: {expects}",
        validate,
        remediate=_usual_timings if number == "KS104" else None,
        enforcement_level=_ENFORCED[level],
        severity=_SEVERITY[level],
        config_schema=_CONFIG.get(number),
        remediation_steps=remedy or None,
        url=rules.page(number),
        display_name=number,
    )


def _stack_policy(policy: Policy) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        urns: dict[str, str] = {}
        declared = []
        for resource in args.resources:
            one = _of_resource(resource)
            if one is not None:
                declared.append(one)
                urns[f"{one.kind} {one.name}"] = resource.urn
        found = _judged(declared, _settings(args))
        _report(found, policy.id, lambda message, finding: report(message, urns.get(finding.resource)))

    return StackValidationPolicy(
        policy.name,
        f"{policy.id}: expects {policy.expects}",
        validate,
        enforcement_level=_ENFORCED[policy.level],
        severity=_SEVERITY[policy.level],
        config_schema=_CONFIG.get(policy.id),
        remediation_steps=policy.remedy,
        url=rules.page(policy.id),
        display_name=policy.id,
    )


def _secrets(policy: Policy) -> ResourceValidationPolicy:
    """Whether a value is a secret is told to remediations alone: this one makes a secret of what is none."""

    def remediate(args: ResourceValidationArgs) -> Mapping[str, Any] | None:
        kind = KINDS.get(args.resource_type.rpartition("dynamic/")[2], "")
        raw = args.props["__target"] if hasattr(args.props, "_DictProxy__target") else args.props
        plain = [name for name in SECRETS.get(kind, ()) if isinstance(raw.get(name), str)]
        return {**raw, **{name: Secret(raw[name]) for name in plain}} if plain else None

    return ResourceValidationPolicy(
        policy.name,
        f"{policy.id}: expects {policy.expects}",
        remediate=remediate,
        enforcement_level=EnforcementLevel.REMEDIATE,
        severity=_SEVERITY[policy.level],
        remediation_steps=policy.remedy,
        url=rules.page(policy.id),
        display_name=policy.id,
    )


def _usual_timings(args: ResourceValidationArgs) -> Mapping[str, Any] | None:
    """Bring weaker timings back to the strongest that is not asked for; used where a team sets "remediate"."""
    settings = _settings(args)
    if KINDS.get(args.resource_type.rpartition("dynamic/")[2]) != "monitor":
        return None
    changed = {}
    for name, most in (("offline_minutes", settings.offline_minutes), ("repeat_hours", settings.repeat_hours)):
        try:
            value = args.props.get(name)
        except UnknownValueError:
            continue
        if isinstance(value, int | float) and value > most:
            changed[name] = most
    return {**args.props["__target"], **changed} if changed else None


def _settings(args: ResourceValidationArgs | StackValidationArgs) -> Settings:
    given = args.get_config() or {}
    names = ("certificate_days", "offline_minutes", "repeat_hours")
    return Settings(**{name: int(given[name]) for name in names if name in given})


def _of_resource(resource: PolicyResource) -> Declared | None:
    return _declared(resource.resource_type, resource.name, resource.props, resource.opts.protect)


def _declared(resource_type: str, name: str, props: Mapping[str, Any], protect: bool | None) -> Declared | None:
    kind = KINDS.get(resource_type.rpartition("dynamic/")[2])
    if kind is None:
        return None
    one = of_inputs(kind, name, {key: _value(props, key) for key in props}, protected=bool(protect))
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


def _report(found: Iterable[Finding], number: str, report: Callable[[str, Finding], None]) -> None:
    for finding in found:
        if finding.policy == number:
            report(f"{finding.message} [{number}]; {finding.remedy}", finding)
