"""The tables of the control plane. No column ever holds a key, a password or a token in clear."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
    func,
    or_,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of all tables; constraints get stable names."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: DateTime(timezone=True), bytes: LargeBinary}  # noqa: RUF012 - SQLAlchemy's interface


class Organization(Base):
    """A customer. `maintenance_by` is the running migration, if any.

    `epoch` and `epoch_nonce` are the stamp of the latest decision (see `keystores.checkpoint`). `suspended` says why
    nothing may be changed: a keystore knows more than this database. `checkpointed` is the number of the last key
    that a checkpoint covers.
    """

    __tablename__ = "organizations"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    environment: Mapped[str] = mapped_column(String(16))
    active_keystore_id: Mapped[int | None] = mapped_column(
        ForeignKey("keystores.id", use_alter=True, name="fk_organizations_active_keystore_id_keystores")
    )
    maintenance_by: Mapped[str | None] = mapped_column(String(36))
    epoch: Mapped[int] = mapped_column(BigInteger, server_default="0")
    epoch_nonce: Mapped[str] = mapped_column(String(32), server_default="")
    suspended: Mapped[str | None]
    checkpointed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    owner_mark: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Keystore(Base):
    """A registered keystore and its binding (address and certificate)."""

    __tablename__ = "keystores"
    __table_args__ = (
        UniqueConstraint("organization_id", "name"),
        # One place, one keystore: the database itself allows no other.
        Index("ix_keystores_place", "organization_id", "cluster_id", "mount", unique=True),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[str] = mapped_column(String(20))
    address: Mapped[str | None] = mapped_column(String(300))
    mount: Mapped[str | None] = mapped_column(String(128))
    role: Mapped[str | None] = mapped_column(String(128))
    server_ca: Mapped[str | None]
    certificate_pem: Mapped[str | None]
    certificate_key_sealed: Mapped[bytes | None]
    certificate_fingerprint: Mapped[str | None] = mapped_column(String(64))
    certificate_not_after: Mapped[datetime | None]
    kv_version: Mapped[int | None]
    cluster_id: Mapped[str | None] = mapped_column(String(100))
    revision: Mapped[int] = mapped_column(server_default="1")
    proved_at: Mapped[datetime | None]
    owner_mark: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ArchiveKeyEntry(Base):
    """That a user's archive key is in escrow, with a keyed digest of it; the key itself lies in the keystore.

    `number` only grows: what was enrolled after a moment has a higher one. A key that an administrator has given up
    may be missing at the keystore.
    """

    __tablename__ = "archive_keys"
    __table_args__ = (Index("ix_archive_keys_number", "organization_id", "number"),)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    # Byte order: paging by user must not depend on the database's locale.
    user: Mapped[str] = mapped_column("user_id", String(512, collation="C"), primary_key=True)
    generation: Mapped[int]
    fingerprint: Mapped[bytes]
    escrowed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    number: Mapped[int] = mapped_column(BigInteger, Identity())
    given_up_at: Mapped[datetime | None]


class DestroyedKey(Base):
    """An archive key that a person has destroyed: a copy that turns up is removed, and not carried over."""

    __tablename__ = "destroyed_keys"
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    user: Mapped[str] = mapped_column("user_id", String(512, collation="C"), primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(primary_key=True)
    destroyed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Verification(Base):
    """The latest look through all keys of an organization's active keystore.

    Attributes of a row: how many keys were looked for, how many are missing, damaged, or lie there without being in
    the ledger, and the first of their names by kind.
    """

    __tablename__ = "verifications"
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    at: Mapped[datetime]
    keystore: Mapped[str]
    keys: Mapped[int]
    missing: Mapped[int]
    damaged: Mapped[int]
    surplus: Mapped[int]
    named: Mapped[dict[str, Any]] = mapped_column(JSONB)


class LegacyKey(Base):
    """An archive key of a legacy keystore, sealed. Old data: rows may be empty, damaged or doubled."""

    __tablename__ = "legacy_keys"
    __table_args__ = (Index("ix_legacy_keys_owner", "organization_id", "user_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"))
    user: Mapped[str] = mapped_column("user_id", String(512, collation="C"))
    key_sealed: Mapped[bytes | None]


class Token(Base):
    """An API token; only a digest of it is kept."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    digest: Mapped[bytes]
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(32))
    organization_id: Mapped[int | None] = mapped_column(ForeignKey("organizations.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Migration(Base):
    """One migration, running or ended. Its id is its DBOS workflow id and the origin of every copy it writes."""

    __tablename__ = "migrations"
    # The database itself allows one running migration an organization.
    __table_args__ = (
        Index("ix_migrations_running", "organization_id", unique=True, postgresql_where=text("state = 'running'")),
    )
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"))
    # No foreign keys: a keystore may be removed, what happened to it stays told.
    source_id: Mapped[int]
    destination_id: Mapped[int]
    source: Mapped[str]
    destination: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    phase: Mapped[str] = mapped_column(String(16))
    ending: Mapped[str | None]
    detail: Mapped[str | None]
    mode: Mapped[str] = mapped_column(String(16), server_default="maintenance")
    total: Mapped[int]
    done: Mapped[int] = mapped_column(server_default="0")
    verified: Mapped[int] = mapped_column(server_default="0")
    cancel_by: Mapped[str | None] = mapped_column(String(140))
    held_s: Mapped[float | None]
    receipt: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    served_at: Mapped[datetime | None]
    notify_email: Mapped[str | None] = mapped_column(String(254))
    requested_by: Mapped[str] = mapped_column(String(140))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    copy_started_at: Mapped[datetime | None]
    copy_ended_at: Mapped[datetime | None]
    verify_started_at: Mapped[datetime | None]
    verify_ended_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Share(Base):
    """A range of users whose keys have to be copied, or read back: what one worker takes at a time.

    It is `free`, `held` by a worker's session, `fenced` while the tokens of a session that was lost are revoked,
    `done` or `failed`.
    """

    __tablename__ = "shares"
    __table_args__ = (Index("ix_shares_state", "state", "migration_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    migration_id: Mapped[str] = mapped_column(String(36), index=True)
    work: Mapped[str] = mapped_column(String(16))
    after: Mapped[str | None] = mapped_column("after_user", String(512, collation="C"))
    upto: Mapped[str | None] = mapped_column("upto_user", String(512, collation="C"))
    state: Mapped[str] = mapped_column(String(16), server_default="free")
    holder: Mapped[str | None] = mapped_column(String(100))
    beats: Mapped[int] = mapped_column(server_default="0")
    done: Mapped[int] = mapped_column(server_default="0")
    digest: Mapped[bytes | None]
    annotated: Mapped[int] = mapped_column(server_default="0")
    ending: Mapped[str | None]
    detail: Mapped[str | None]


class LateKey(Base):
    """A key that was enrolled while its organization migrates online: it is in no share."""

    __tablename__ = "late_keys"
    migration_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user: Mapped[str] = mapped_column("user_id", String(512, collation="C"), primary_key=True)
    verified: Mapped[bool] = mapped_column(server_default="false")


class Grant(Base):
    """A Vault token that may write or delete at a keystore, sealed: whoever takes over ends it first.

    `cluster_id` is the cluster that gave it, and the only one where it can be ended.
    """

    __tablename__ = "grants"
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(index=True)
    keystore_id: Mapped[int] = mapped_column(index=True)
    cluster_id: Mapped[str] = mapped_column(String(100), server_default="")
    holder: Mapped[str] = mapped_column(String(100))
    token_sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CleanUp(Base):
    """Keys that still have to be removed from the losing side of a migration.

    It is `reserved` while somebody may still write there under that id, `pending`, `done`, or `abandoned`.
    `cluster_id` and `mount` are the place where they lie, wherever the keystore has been moved to since.
    """

    __tablename__ = "clean_ups"
    id: Mapped[int] = mapped_column(primary_key=True)
    migration_id: Mapped[str] = mapped_column(String(36))
    keystore_id: Mapped[int]
    cluster_id: Mapped[str | None] = mapped_column(String(100))
    mount: Mapped[str | None] = mapped_column(String(128))
    side: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default="0")
    detail: Mapped[str | None]
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())


class HistoryEntry(Base):
    """Who did what when. Append-only: the database refuses changes."""

    __tablename__ = "history"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    organization_id: Mapped[int] = mapped_column(index=True)
    actor: Mapped[str] = mapped_column(String(140))
    action: Mapped[str]
    detail: Mapped[str | None]


class KeystoreHealth(Base):
    """The tests of one self-administered keystore: the latest result, and who makes the next one.

    `minute` is that of the latest test; a process that has claimed the keystore until a moment makes the one that
    is due. `phase` is where in the minute that is.
    """

    __tablename__ = "keystore_health"
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[float]
    minute: Mapped[int | None] = mapped_column(BigInteger)
    claimed_by: Mapped[str | None] = mapped_column(String(100))
    claimed_until: Mapped[datetime | None]
    online: Mapped[bool | None]
    reason: Mapped[str | None] = mapped_column(String(40))
    detail: Mapped[str | None]
    warning: Mapped[str | None]
    seconds: Mapped[float | None]
    since: Mapped[datetime | None]
    tested_at: Mapped[datetime | None]
    lacking: Mapped[int] = mapped_column(server_default="0")
    surplus: Mapped[int] = mapped_column(server_default="0")
    alerted: Mapped[bool] = mapped_column(server_default="false")


class HealthSample(Base):
    """Whether a keystore was online in one minute; a minute without a row was not tested."""

    __tablename__ = "health_samples"
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"), primary_key=True)
    minute: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    online: Mapped[bool]
    at: Mapped[datetime] = mapped_column(index=True)


class HealthMonitor(Base):
    """Who is told when a keystore is offline, and when; `alert` is where the state machine of that stands."""

    __tablename__ = "health_monitors"
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"), primary_key=True)
    recipients: Mapped[list[str]] = mapped_column(JSONB)
    webhook_sealed: Mapped[bytes | None]
    webhook_host: Mapped[str | None] = mapped_column(String(300))
    offline_minutes: Mapped[int]
    repeat_hours: Mapped[int]
    online_minutes: Mapped[int]
    alert: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    owner_mark: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Parcel:
    """What has to be sent, or was; written in the transaction of what it tells about."""

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_error: Mapped[str | None]


class Mail(Parcel, Base):
    """A mail to one recipient."""

    __tablename__ = "mails"
    message_id: Mapped[str] = mapped_column(String(100), unique=True)
    recipient: Mapped[str] = mapped_column(String(254))
    subject: Mapped[str]
    body: Mapped[str]


class Hook(Parcel, Base):
    """A call of a webhook; its URL often holds a secret, so it is sealed."""

    __tablename__ = "hooks"
    event_id: Mapped[str] = mapped_column(String(100), unique=True)
    url_sealed: Mapped[bytes]
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)


class ConsoleSession(Base):
    """A browser that is signed in with an API token; the id is a digest of its cookie."""

    __tablename__ = "console_sessions"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class Fact(Base):
    """Facts about this database, such as which master key it belongs to."""

    __tablename__ = "facts"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[bytes]


def is_due(at: InstrumentedAttribute[datetime], now: datetime, longest_s: float) -> ColumnElement[bool]:
    """Return the condition that a moment has come, or lies further ahead than anybody would have set it.

    The latter is so after the clock was put back: better too early than a day late.
    """
    return or_(at <= now, at > now + timedelta(seconds=longest_s))


def as_document(row: Base, *names: str) -> dict[str, Any]:
    """Return some columns of a row as a JSON-ready dictionary; times in UTC, ISO 8601."""
    document: dict[str, Any] = {}
    for name in names:
        value = getattr(row, name)
        document[name] = value.isoformat() if isinstance(value, datetime) else value
    return document
