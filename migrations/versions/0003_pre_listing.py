"""Labels, pages by queue and handler, how fast a queue goes, operations on many Tasks.

Only adds. A writer of the version before knows no labels: its rows have none, and its updates leave those that are
there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("tasks", sa.Column("labels", JSONB))
    newest_first = (sa.text("created_at DESC"), sa.text("uid DESC"))
    op.create_index("ix_tasks_page_by_queue", "tasks", ["namespace", "queue", *newest_first])
    op.create_index("ix_tasks_page_by_handler", "tasks", ["namespace", "handler", *newest_first])
    op.create_index("ix_tasks_labels", "tasks", ["labels"], postgresql_using="gin")
    op.create_index(
        "ix_tasks_started",
        "tasks",
        ["namespace", "queue", sa.text("started_at DESC")],
        postgresql_where=sa.text("started_at IS NOT NULL"),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("verb", sa.Text, nullable=False),
        sa.Column("filter", JSONB, nullable=False),
        sa.Column("caller", JSONB, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("after_created_at", sa.DateTime(timezone=True)),
        sa.Column("after_uid", sa.Text),
        sa.Column("matched", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("problems", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("lease", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
    )
    op.create_index("ix_operations_page", "operations", ["namespace", sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index(
        "ix_operations_running", "operations", ["created_at"], postgresql_where=sa.text("finished_at IS NULL")
    )


def downgrade() -> None:
    op.drop_table("operations")
    for name in ("ix_tasks_started", "ix_tasks_labels", "ix_tasks_page_by_handler", "ix_tasks_page_by_queue"):
        op.drop_index(name, "tasks")
    op.drop_column("tasks", "labels")
