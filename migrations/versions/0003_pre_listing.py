"""How fast a queue goes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_index(
        "ix_tasks_started",
        "tasks",
        ["namespace", "queue", sa.text("started_at DESC")],
        postgresql_where=sa.text("started_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_tasks_started", "tasks")
