"""Tables: migrations and their shards."""

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
from pulumi_keystore.declarations.migration import Mode, Phase, State


class Migration(Base):
    """One migration, running or ended. Its id is its DBOS workflow id and the origin of every copy it writes."""

    __tablename__ = "migrations"
    __table_args__ = (
        # The database itself allows one running migration an organization.
        Index("ix_migrations_running", "organization_id", unique=True, postgresql_where=text("state = 'running'")),
        Index("ix_migrations_failed", "ended_at", postgresql_where=text("state = 'failed'")),
        Index("ix_migrations_latest", "organization_id", "started_at"),
    )
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    organization_id: Mapped[int] = mapped_column(ForeignKey("organizations.id"))
    # No foreign keys: a keystore may be removed, what happened to it stays told.
    source_id: Mapped[int]
    destination_id: Mapped[int]
    source: Mapped[str]
    destination: Mapped[str]
    state: Mapped[State] = mapped_column(word(State))
    phase: Mapped[Phase] = mapped_column(word(Phase))
    ending: Mapped[str | None]
    detail: Mapped[str | None]
    mode: Mapped[Mode] = mapped_column(word(Mode), server_default="maintenance")
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


class Work(StrEnum):
    """What has to be done with the keys of a shard."""

    COPY = "copy"
    VERIFY = "verify"


class ShardState(StrEnum):
    """Whether somebody works on a shard, or has."""

    FREE = "free"
    LEASED = "leased"
    """A worker has it."""
    FENCED = "fenced"
    """A worker that was lost had it, and its tokens are being revoked."""
    DONE = "done"
    FAILED = "failed"


class Shard(Base):
    """A range of users whose keys have to be copied, or read back: what one worker takes at a time."""

    __tablename__ = "shards"
    __table_args__ = (Index("ix_shards_state", "state", "migration_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    migration_id: Mapped[str] = mapped_column(String(36), index=True)
    work: Mapped[Work] = mapped_column(word(Work))
    after: Mapped[str | None] = mapped_column("after_user", String(512, collation="C"))
    upto: Mapped[str | None] = mapped_column("upto_user", String(512, collation="C"))
    state: Mapped[ShardState] = mapped_column(word(ShardState), server_default="free")
    holder: Mapped[str | None] = mapped_column(String(100))
    heartbeats: Mapped[int] = mapped_column(server_default="0")
    done: Mapped[int] = mapped_column(server_default="0")
    digest: Mapped[bytes | None]
    annotated: Mapped[int] = mapped_column(server_default="0")
    ending: Mapped[str | None]
    detail: Mapped[str | None]
