"""The tables of API keys and accounts. No other component reads or writes them."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Index, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from taskflow_api.tables import metadata

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("service_account", Text, nullable=False),
    Column("service_account_uid", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", JSONB, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True)),
    Column("replaced_by", Text),
    Index("ix_api_keys_namespace", "namespace", "created_at", "id"),
)
"""One row per key, without its secret. Revoked keys are deleted."""

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("namespace", Text),
    Column("service_account", Text),
    Column("service_account_uid", Text),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("ix_accounts_name", "name", unique=True),
)
"""One row per account. Without a ServiceAccount, an account cannot authenticate."""
