"""Schedules and their runs.

Only adds.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision: str | None = "0011"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    at = sa.DateTime(timezone=True)
    op.create_table(
        "schedules",
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("spec", JSONB, nullable=False),
        sa.Column("cursor", at),
        sa.Column("created_at", at, nullable=False),
        sa.Column("deleted_at", at),
        sa.PrimaryKeyConstraint("uid", name="pk_schedules"),
    )
    op.create_index("ix_schedules_name", "schedules", ["namespace", "name"])
    op.create_table(
        "schedule_runs",
        sa.Column("schedule_uid", sa.Text, nullable=False),
        sa.Column("tick", at, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("backfill", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("task_uid", sa.Text),
        sa.Column("task_name", sa.Text),
        sa.Column("decided_at", at, nullable=False),
        sa.PrimaryKeyConstraint("schedule_uid", "tick", "token", name="pk_schedule_runs"),
    )
    newest_first = (sa.text("tick DESC"), sa.text("schedule_uid DESC"), sa.text("token DESC"))
    op.create_index("ix_schedule_runs_page", "schedule_runs", ["namespace", "schedule", *newest_first])
    op.create_index(
        "ix_schedule_runs_task",
        "schedule_runs",
        ["namespace", "task_name"],
        postgresql_where=sa.text("task_name IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("schedule_runs")
    op.drop_table("schedules")
