"""Tables: Vault tokens in use, clean-ups, verifications, and whom a keystore tells."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ForeignKey,
    Index,
    String,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from pulumi_keystore.control_plane.runtime.tables import Base, word
from pulumi_keystore.declarations.monitor import WebhookFormat


class Verification(Base):
    """The latest look through all keys of an organization's active keystore.

    Attributes of a row: how many keys were looked for, how many are missing, damaged, or lie there without being in
    the ledger, and the first of their names by kind.
    """

    __tablename__ = "verifications"
    __table_args__ = (
        Index("ix_verifications_unsound", "organization_id", postgresql_where=text("missing + damaged > 0")),
    )
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    at: Mapped[datetime]
    keystore: Mapped[str]
    keys: Mapped[int]
    missing: Mapped[int]
    damaged: Mapped[int]
    surplus: Mapped[int]
    named: Mapped[dict[str, Any]] = mapped_column(JSONB)


class JournalledToken(Base):
    """A Vault token that may write or delete at a keystore, sealed: whoever takes over ends it first.

    `cluster_id` and `namespace` are those that gave it, and the only ones where it can be ended.
    """

    __tablename__ = "token_journal"
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int] = mapped_column(index=True)
    keystore_id: Mapped[int] = mapped_column(index=True)
    cluster_id: Mapped[str] = mapped_column(String(100), server_default="")
    namespace: Mapped[str] = mapped_column(String(128), server_default="")
    holder: Mapped[str] = mapped_column(String(100))
    token_sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Side(StrEnum):
    """What is left behind where."""

    SOURCE = "source"
    """All keys, as the migration has succeeded."""
    DESTINATION = "destination"
    """The copies of a migration that failed."""
    PROOF = "proof"
    """The canaries of a proof that was killed."""


class CleanUpState(StrEnum):
    """Whether a clean-up is still to be done."""

    RESERVED = "reserved"
    """Somebody may still write there under that id."""
    PENDING = "pending"
    DONE = "done"
    ABANDONED = "abandoned"


class CleanUp(Base):
    """Keys that still have to be removed from the losing side of a migration.

    `cluster_id` and `path` are the place where they lie (`vault.place`), wherever the keystore has been moved to since.
    """

    __tablename__ = "clean_ups"
    __table_args__ = (Index("ix_clean_ups_keystore_id", "keystore_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    migration_id: Mapped[str] = mapped_column(String(36))
    keystore_id: Mapped[int]
    cluster_id: Mapped[str | None] = mapped_column(String(100))
    path: Mapped[str | None] = mapped_column(String(257))
    side: Mapped[Side] = mapped_column(word(Side))
    state: Mapped[CleanUpState] = mapped_column(word(CleanUpState))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    attempts: Mapped[int] = mapped_column(server_default="0")
    detail: Mapped[str | None]
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())


class HealthMonitor(Base):
    """Who is told when a keystore is offline, and when.

    `alert` is where the state machine of that stands; `rehearsal` when it was last tested as it is, and what each
    receiver answered.
    """

    __tablename__ = "health_monitors"
    keystore_id: Mapped[int] = mapped_column(ForeignKey("keystores.id", ondelete="CASCADE"), primary_key=True)
    recipients: Mapped[list[str]] = mapped_column(JSONB)
    webhook_sealed: Mapped[bytes | None]
    webhook_host: Mapped[str | None] = mapped_column(String(300))
    webhook_format: Mapped[WebhookFormat] = mapped_column(word(WebhookFormat), server_default="json")
    offline_minutes: Mapped[int]
    repeat_hours: Mapped[int]
    online_minutes: Mapped[int]
    alert: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    rehearsal: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    owner_mark: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
