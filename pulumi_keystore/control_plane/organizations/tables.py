"""Tables: organizations, their keystores, the ledger of their keys, and their history."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Identity,
    Index,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pulumi_keystore.control_plane.runtime.tables import Base, word
from pulumi_keystore.declarations.names import Kind
from pulumi_keystore.declarations.tenancy import within

_PATH: Final = "ltrim((namespace || '/') || mount, '/')"
"""`Keystore.path` in SQL, in the brackets in which PostgreSQL gives it back."""


class Organization(Base):
    """A customer.

    `maintenance_by` is the running migration, if any. If it is `online`, keys are written meanwhile; once its shards
    are planned, they also go to the keystore `mirror_id`.

    `epoch` and `epoch_nonce` are the stamp of the latest decision (see `vault.checkpoint`). `suspended` says why
    nothing may be changed: a keystore knows more than this database. `checkpointed` is the number of the last key
    that a checkpoint covers.
    """

    __tablename__ = "organizations"
    __table_args__ = (
        Index("ix_organizations_active_keystore_id", "active_keystore_id"),
        Index("ix_organizations_suspended", "id", postgresql_where=text("suspended IS NOT NULL")),
        Index("ix_organizations_busy", "name", postgresql_where=text("maintenance_by IS NOT NULL")),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    environment: Mapped[str] = mapped_column(String(16))
    active_keystore_id: Mapped[int | None] = mapped_column(
        ForeignKey("keystores.id", use_alter=True, name="fk_organizations_active_keystore_id_keystores")
    )
    maintenance_by: Mapped[str | None] = mapped_column(String(36))
    online: Mapped[bool] = mapped_column(server_default="false")
    # No foreign key: a keystore is not removed while a migration writes to it, and migrations have none either.
    mirror_id: Mapped[int | None]
    epoch: Mapped[int] = mapped_column(BigInteger, server_default="0")
    epoch_nonce: Mapped[str] = mapped_column(String(32), server_default="")
    suspended: Mapped[str | None]
    checkpointed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    owner_mark: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Keystore(Base):
    """A registered keystore and its binding (address and certificate); `alerts`: somebody is told of its outages."""

    __tablename__ = "keystores"
    __table_args__ = (
        UniqueConstraint("organization_id", "name"),
        # One place, one keystore: the database itself allows no other, however namespace and mount are divided.
        Index("ix_keystores_place", "organization_id", "cluster_id", text(_PATH), unique=True),
        Index("ix_keystores_no_alerts", "id", postgresql_where=text("NOT alerts")),
        Index("ix_keystores_certificate_not_after", "certificate_not_after", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"))
    name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[Kind] = mapped_column(word(Kind, 20))
    address: Mapped[str | None] = mapped_column(String(300))
    namespace: Mapped[str] = mapped_column(String(128), server_default="")
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
    alerts: Mapped[bool] = mapped_column(server_default="false")
    owner_mark: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def path(self) -> str | None:
        """The mount as the root namespace spells it; None for a legacy keystore."""
        return None if self.mount is None else within(self.namespace, self.mount)


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


class LegacyKey(Base):
    """An archive key of a legacy keystore, sealed. Old data: rows may be empty, damaged or doubled."""

    __tablename__ = "legacy_keys"
    __table_args__ = (Index("ix_legacy_keys_owner", "organization_id", "user_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    user: Mapped[str] = mapped_column("user_id", String(512, collation="C"))
    key_sealed: Mapped[bytes | None]


class LateKey(Base):
    """A key that was enrolled while its organization migrates online: it is in no shard."""

    __tablename__ = "late_keys"
    migration_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user: Mapped[str] = mapped_column("user_id", String(512, collation="C"), primary_key=True)
    verified: Mapped[bool] = mapped_column(server_default="false")


class HistoryEntry(Base):
    """Who did what when. Append-only: the database refuses changes."""

    __tablename__ = "history"
    __table_args__ = (Index("ix_history_organization_id", "organization_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    organization_id: Mapped[int]
    actor: Mapped[str] = mapped_column(String(140))
    action: Mapped[str]
    detail: Mapped[str | None]
