"""Tasks, attempts and timeline."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("handler", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("spec", JSONB, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("result", JSONB),
        sa.Column("outputs", JSONB, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("uid", name="pk_tasks"),
    )
    newest_first = (sa.text("created_at DESC"), sa.text("uid DESC"))
    op.create_index("ix_tasks_page", "tasks", ["namespace", *newest_first])
    op.create_index("ix_tasks_page_by_phase", "tasks", ["namespace", "phase", *newest_first])
    op.create_index("ix_tasks_name", "tasks", ["namespace", "name", *newest_first])
    op.create_table(
        "attempts",
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("outcome", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("error_type", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("run_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("uid", "attempt", name="pk_attempts"),
    )
    op.create_table(
        "timeline",
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_timeline"),
    )
    op.create_index("ix_timeline_uid_at", "timeline", ["uid", "at"])


def downgrade() -> None:
    op.drop_table("timeline")
    op.drop_table("attempts")
    op.drop_table("tasks")
