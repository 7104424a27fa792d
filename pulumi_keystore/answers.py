"""What the service answers, operation by operation: the shapes that API, client, command and resources share.

They are the response schemas of docs/openapi.json, too. Times are ISO 8601 in UTC; what is None is unknown, or not so.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class OrganizationAnswer(TypedDict):
    """An organization. `suspended` says why nothing may be changed, `maintenance` which migration runs."""

    name: str
    environment: str
    created_at: str
    suspended: str | None
    active_keystore: str | None
    maintenance: str | None
    archive_keys: int
    warnings: NotRequired[list[str]]


class ListedOrganizationAnswer(OrganizationAnswer):
    """An organization in a list: what its active keystore is and how it does, and the problems it has."""

    kind: str | None
    status: str | None
    reason: str | None
    certificate_not_after: str | None
    problems: list[str]


class KeystoreAnswer(TypedDict):
    """A registered keystore; address, certificate and what was found out about the server only where it is a Vault.

    `namespace` is empty for the root namespace.
    """

    organization: str
    name: str
    kind: str
    address: str | None
    address_display: str | None
    namespace: str
    mount: str | None
    role: str | None
    server_ca: str | None
    certificate_fingerprint: str | None
    certificate_not_after: str | None
    kv_version: int | None
    cluster_id: str | None
    revision: int
    proved_at: str | None
    created_at: str
    active: bool
    warnings: NotRequired[list[str]]


class ConnectionAnswer(TypedDict):
    """What a test of a connection found just now, and what to do about it, step by step."""

    status: str
    reason: str | None
    detail: str | None
    cause: str | None
    steps: list[str]


class ReliabilityAnswer(TypedDict):
    """An hour, a day or a month in buckets, oldest first, and the share of tests that were online.

    A bucket is online, offline, partly (some of its tests were offline) or unknown (none was made); `details` say it
    in words, with the reason; `slowest_ms` is how long the slowest test took.
    """

    period: str
    ratio: float | None
    begin: str
    bucket_s: float
    buckets: list[str]
    details: list[str]
    slowest_ms: list[int | None]


class HealthAnswer(TypedDict):
    """What the health checks of a self-administered keystore say; `duration_s` is how long the latest one took.

    `cause` is why it is offline, in a word, and `steps` what to do about it. `server_certificate_not_after` is when the
    certificate expires that the server has shown; of several servers, the first of them.
    """

    organization: NotRequired[str]
    keystore: str
    status: str
    reason: str | None
    detail: str | None
    cause: str | None
    steps: list[str]
    warning: str | None
    since: str | None
    for_s: int | None
    tested_at: str | None
    duration_s: float | None
    server_certificate_not_after: str | None
    reliability: ReliabilityAnswer


class IncidentAnswer(TypedDict):
    """A time in which a keystore was offline; `ended_at` is null while it lasts.

    Reason, cause and detail are those of its first failed test; `alerts` is how often its recipients were alerted.
    """

    id: int
    begun_at: str
    ended_at: str | None
    duration_s: int
    reason: str | None
    cause: str | None
    detail: str | None
    alerts: int


class ReceiverAnswer(TypedDict):
    """What a recipient's mail server, or a webhook, answered to a test."""

    receiver: str
    accepted: bool
    detail: str | None


class MonitorAnswer(TypedDict):
    """Who is alerted, and when. Of a webhook, whose URL may hold a secret, host and fingerprint alone are shown."""

    organization: str
    keystore: str
    recipients: list[str]
    webhook_host: str | None
    webhook_format: str | None
    webhook_fingerprint: str | None
    offline_minutes: int
    repeat_hours: int
    online_minutes: int
    warnings: NotRequired[list[str]]


class MigrationAnswer(TypedDict):
    """A migration with its progress. `rate` is in keys a second; it can be undone until `retained_until`."""

    organization: str
    id: str
    source: str
    destination: str
    mode: str
    state: str
    phase: str
    ending: str | None
    detail: str | None
    total: int
    done: int
    verified: int
    requested_by: str
    cancel_by: str | None
    started_at: str
    ended_at: str | None
    receipt: dict[str, Any] | None
    rate: float | None
    remaining_s: float | None
    clean_up_pending: list[str]
    retained_until: str | None


class UnchangedAnswer(TypedDict):
    """A migration that was asked for and not needed: the destination is active already."""

    organization: str
    id: None
    state: Literal["unchanged"]
    destination: str


class MigrationPlanAnswer(TypedDict):
    """What a migration would do."""

    organization: str
    source: str | None
    destination: str
    moves: bool
    carries_alerts: bool
    keys: int
    estimate_s: float
    unreachable: list[str]
    retain_s: float
    maintenance: str | None


class VerificationAnswer(TypedDict):
    """Numbers of the latest verification of an organization."""

    at: str
    keystore: str
    keys: int
    missing: int
    damaged: int
    surplus: int


class StatusAnswer(OrganizationAnswer):
    """An organization with all that is known of its active keystore, and the running migration."""

    keystore: KeystoreAnswer | None
    connection: ConnectionAnswer | None
    verification: VerificationAnswer | None
    health: HealthAnswer | None
    migration: MigrationAnswer | None


class HistoryAnswer(TypedDict):
    """An entry of an organization's history."""

    id: int
    at: str
    actor: str
    action: str
    detail: str | None


class TokenAnswer(TypedDict):
    """An API token, without its secret."""

    id: str
    name: str
    role: str
    organization: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewTokenAnswer(TokenAnswer):
    """An API token that was just made, and its text, which is shown this once."""

    token: str


class NamesAnswer(TypedDict):
    """Users or entries: how many, and the names of the first."""

    count: int
    names: list[str]


class ReportAnswer(TypedDict):
    """What reading every archive key found. `sound`: nothing is wrong but what was given up."""

    keystore: str
    at: str
    keys: int
    missing: NamesAnswer
    damaged: NamesAnswer
    surplus: NamesAnswer
    given_up: int
    sound: bool


class UsersAnswer(NamesAnswer):
    """The same of users, with a digest of them all."""

    digest: str


class RecoverySideAnswer(TypedDict):
    """What one keystore remembers and holds."""

    keystore: str
    address: str
    readable: bool
    epoch: int | None
    was_active: bool
    remembered_at: str | None
    keys: int
    detail: str | None


class RecoveryAnswer(TypedDict):
    """What a recovery takes over, and from where; `code` is what has to be given back to have just this done."""

    organization: str
    suspended: str | None
    keystore: str
    sides: list[RecoverySideAnswer]
    added: UsersAnswer
    replaced: UsersAnswer
    gathered: UsersAnswer
    missing: UsersAnswer
    unread: list[str]
    code: str


class CleanUpAnswer(TypedDict):
    """Keys that are still to be removed from the keystore that a migration left, or gave up."""

    id: int
    migration: str
    keystore: str | None
    side: str
    state: str
    place: str
    attempts: int
    detail: str | None
    next_at: str


class EnrolledAnswer(TypedDict):
    """How many keys were new, were written once more because they were missing, and were given."""

    enrolled: int
    restored: int
    given: int


class ReleasedAnswer(TypedDict):
    """A user's archive key, encrypted to who asked for it (HPKE; base64)."""

    user: str
    sealed_key: str


class GivenUpAnswer(TypedDict):
    """How many archive keys are given up now."""

    given_up: int
