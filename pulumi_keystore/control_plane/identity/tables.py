"""Tables: API tokens and sessions of the console."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ForeignKey,
    Index,
    String,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from pulumi_keystore.control_plane.runtime.tables import Base


class Token(Base):
    """An API token; only a digest of it is kept."""

    __tablename__ = "tokens"
    __table_args__ = (Index("ix_tokens_created_at", "created_at", "id"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    digest: Mapped[bytes]
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(32))
    organization_id: Mapped[int | None] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class ConsoleSession(Base):
    """A browser that is signed in with an API token; the id is a digest of its cookie."""

    __tablename__ = "console_sessions"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[str] = mapped_column(ForeignKey("tokens.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
