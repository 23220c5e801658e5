"""The tables of endpoints and deliveries. A trigger on `tasks` adds the deliveries of finished Tasks."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Index, Integer, LargeBinary, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from taskflow_api.tables import metadata

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("types", JSONB, nullable=False),
    Column("every_task", Boolean, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("old_secret", LargeBinary),
    Column("old_secret_until", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("disabled_at", DateTime(timezone=True)),
    Column("disabled_reason", Text, nullable=False),
    Index("ix_webhooks_name", "namespace", "name", unique=True),
)
"""One row per endpoint. Secrets are encrypted."""

deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("webhook_id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("task_uid", Text),
    Column("task_name", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("tries", JSONB, nullable=False),
    Column("next_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("lease", Text),
    Column("leased_until", DateTime(timezone=True)),
    Index("ix_webhook_deliveries_event", "webhook_id", "event_id", unique=True),
    Index("ix_webhook_deliveries_page", "webhook_id", text("created_at DESC"), text("id DESC")),
    Index("ix_webhook_deliveries_due", "next_at", postgresql_where=text("state = 'Pending'")),
    Index("ix_webhook_deliveries_old", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
)
"""One row per message and endpoint. It has no foreign key: rows of a deleted endpoint are swept."""
