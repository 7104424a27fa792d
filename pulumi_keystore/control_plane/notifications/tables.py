"""Tables: mails and calls that are to be sent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Index, String, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from pulumi_keystore.control_plane.runtime.tables import Base, word
from pulumi_keystore.declarations.monitor import WebhookFormat


class OutboxMessage:
    """What has to be sent, or was; written in the transaction of what it tells about."""

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sent_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_error: Mapped[str | None]
    given_up_at: Mapped[datetime | None]
    """Since when it is not tried any more: it was refused for good, or for too long."""

    @classmethod
    def owner(cls) -> ColumnElement[Any]:
        """Return the organization that it is about: it chooses who receives it, and it alone waits for them."""
        raise NotImplementedError


class Mail(OutboxMessage, Base):
    """A mail to one recipient."""

    __tablename__ = "mails"
    __table_args__ = (Index("ix_mails_organization_id", "organization_id", "created_at"),)
    message_id: Mapped[str] = mapped_column(String(100), unique=True)
    organization_id: Mapped[int] = mapped_column(server_default="0")
    recipient: Mapped[str] = mapped_column(String(254))
    subject: Mapped[str]
    body: Mapped[str]

    @classmethod
    def owner(cls) -> ColumnElement[Any]:
        """Return the number of the organization; that of mails of an earlier version is 0."""
        return cls.organization_id.expression


class Hook(OutboxMessage, Base):
    """A call of a webhook; its URL often holds a secret, so it is sealed."""

    __tablename__ = "hooks"
    event_id: Mapped[str] = mapped_column(String(100), unique=True)
    url_sealed: Mapped[bytes]
    sealed_for: Mapped[str] = mapped_column(String(64), server_default="")
    format: Mapped[WebhookFormat] = mapped_column(word(WebhookFormat), server_default="json")
    body: Mapped[dict[str, Any]] = mapped_column(JSONB)

    @classmethod
    def owner(cls) -> ColumnElement[Any]:
        """Return the name of the organization."""
        return func.jsonb_extract_path_text(cls.body, "organization")
