"""The `HealthMonitor` resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pulumi
from pulumi.dynamic import CheckResult, CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from pulumi_keystore.declarations.monitor import (
    INPUTS,
    OFFLINE_MINUTES,
    ONLINE_MINUTES,
    REPEAT_HOURS,
    TIMINGS,
    WebhookFormat,
    problems,
)
from pulumi_keystore.errors import ManagedElsewhere, NotFound
from pulumi_keystore.resources.keystore import Keystore
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

FOUND: Final = ("webhook_host", "webhook_fingerprint")
SECRETS: Final = ("webhook",)


class HealthMonitorProvider(KeystoreProvider):
    """Dynamic provider of `HealthMonitor`; its id is ORGANIZATION/KEYSTORE: there is one for each keystore."""

    @one_line
    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Apply the rules to what is known, without asking anybody; also in preview."""
        unknown, recipients = unknown_properties(news), news.get("recipients")
        if isinstance(recipients, list) and any(map(is_unknown, recipients)):
            unknown.add("recipients")
        return CheckResult(news, [failure(violation, SECRETS) for violation in problems(news, unknown)])

    @one_line
    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another keystore is another monitor; all else is changed in place."""
        replaces = changed(olds, news, ("organization", "keystore"))
        return DiffResult(changes=True, replaces=replaces) if replaces else DiffResult()

    @one_line
    def create(self, props: dict[str, Any]) -> CreateResult:
        """Have the keystore monitored; safe to repeat.

        Another resource's monitor is taken over where it says the same, or with `adopt`.
        """
        done = self._put(props, new_mark(), adopt=bool(props.get("adopt")))
        return CreateResult(f"{props['organization']}/{props['keystore']}", done)

    @one_line
    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Change who is told, and when; an open incident goes on."""
        return UpdateResult(self._put(news, mark_of(olds) or new_mark(), adopt=True))

    @one_line
    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Return what the service has, so that changes made elsewhere are shown as drift."""
        organization, keystore = id_.split("/", 1)
        with self.client() as service:
            try:
                found = service.monitor(organization, keystore)
            except NotFound:
                return ReadResult(None, {})
        outs = {**props, **{name: found[name] for name in (*FOUND, "recipients", *TIMINGS)}}
        if found["webhook_fingerprint"] != props.get("webhook_fingerprint"):
            tell(f"{id_}: the webhook was changed outside Pulumi")
            outs["webhook"] = "changed outside Pulumi" if found["webhook_host"] else None
        if found["webhook_format"] not in (None, props.get("webhook_format") or WebhookFormat.JSON):
            outs["webhook_format"] = found["webhook_format"]
        # What a program does not say, and older states do not hold, stays out of the inputs.
        declared = [name for name in INPUTS if name != "webhook_format" or name in outs]
        return ReadResult(
            id_, outs, {name: outs.get(name) for name in ("organization", "keystore", *declared)} | _adopting(props)
        )

    @one_line
    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Remove the monitor; the keystore stays, and its health checks continue.

        A monitor that another resource manages by now, as after this one was renamed, stays.
        """
        organization, keystore = id_.split("/", 1)
        with self.client() as service:
            try:
                service.delete_monitor(organization, keystore, mark=mark_of(props))
            except NotFound:
                return
            except ManagedElsewhere as reason:
                tell(f"warning: {reason.summary}")

    def _put(self, props: dict[str, Any], mark: str, *, adopt: bool) -> dict[str, Any]:
        body = {
            name: props[name] for name in ("recipients", "webhook", "webhook_format") if props.get(name) is not None
        }
        # Numbers come from the engine as floats.
        body |= {name: int(props[name]) for name in TIMINGS if props.get(name) is not None}
        with self.client() as service:
            organization, keystore = str(props["organization"]), str(props["keystore"])
            found = service.put_monitor(organization, keystore, body, adopt=adopt, mark=mark)
        for warning in found.get("warnings", ()):
            tell(f"warning: {organization}/{keystore}: {warning}")
        return {**props, **{name: found[name] for name in FOUND}, "mark": mark}


def _adopting(props: Mapping[str, Any]) -> dict[str, Any]:
    return {"adopt": props["adopt"]} if "adopt" in props else {}


class HealthMonitor(Resource, module="keystore", name="HealthMonitor"):
    """Tells administrators when a self-administered keystore is offline, and when it is back.

    Every self-administered keystore is tested each minute anyway; this says who is told. After `offline_minutes`
    each recipient gets a mail, and another one every `repeat_hours` while it lasts; after `online_minutes` online
    again one more. Nobody is told about a keystore that is not the active one.

    Args:
        resource_name: Name of the resource in the program.
        keystore: The `Keystore` resource, or a keystore's name.
        recipients: E-mail addresses of the administrators, 1 to 20; none will do where there is a webhook.
        webhook: https://HOST/PATH that is called, too. Kept secret.
        webhook_format: What it is called with: json (default), slack or pagerduty.
        offline_minutes: Minutes offline before the first alert, 5 by default, at most 60.
        repeat_hours: Hours between reminders, 24 by default, at most 168.
        online_minutes: Minutes online again before the all-clear, 5 by default, at most 60.
        organization: Name of the organization; that of the `Keystore` resource by default.
        adopt: Take over a monitor that another resource manages and that says something else.
        opts: Pulumi's options.

    """

    organization: pulumi.Output[str]
    keystore: pulumi.Output[str]
    recipients: pulumi.Output[Sequence[str]]
    offline_minutes: pulumi.Output[int]
    repeat_hours: pulumi.Output[int]
    online_minutes: pulumi.Output[int]
    webhook_host: pulumi.Output[str | None]

    def __init__(
        self,
        resource_name: str,
        keystore: Keystore | pulumi.Input[str],
        recipients: pulumi.Input[Sequence[pulumi.Input[str]]] = (),
        webhook: pulumi.Input[str] | None = None,
        offline_minutes: pulumi.Input[int] = OFFLINE_MINUTES,
        repeat_hours: pulumi.Input[int] = REPEAT_HOURS,
        online_minutes: pulumi.Input[int] = ONLINE_MINUTES,
        organization: pulumi.Input[str] | None = None,
        adopt: pulumi.Input[bool] = False,
        webhook_format: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        if isinstance(keystore, Keystore):
            # It ends with its keystore, and not before: a `destroy` that is refused there leaves the alerts on.
            opts = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(deleted_with=keystore), opts)
            organization = keystore.organization if organization is None else organization
            keystore = keystore.name
        if organization is None:
            raise pulumi.RunError(f"{resource_name}: organization is missing; give it, or the Keystore resource itself")
        props: dict[str, Any] = {
            "organization": organization,
            "keystore": keystore,
            "recipients": recipients,
            "webhook": None if webhook is None else pulumi.Output.secret(webhook),
            "offline_minutes": offline_minutes,
            "repeat_hours": repeat_hours,
            "online_minutes": online_minutes,
            **dict.fromkeys(FOUND),
        }
        if webhook_format is not None:
            props["webhook_format"] = webhook_format
        if adopt is not False:
            props["adopt"] = adopt
        super().__init__(HealthMonitorProvider(), resource_name, props, with_ours(opts, SECRETS))
