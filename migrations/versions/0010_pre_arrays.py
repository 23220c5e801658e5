"""Items of arrays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "array_items",
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("first_index", sa.Integer, nullable=False),
        sa.Column("last_index", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("result", JSONB),
        sa.Column("reason", sa.Text),
        sa.Column("error_type", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("uid", "first_index", name="pk_array_items"),
    )
    op.create_index(
        "ix_array_items_failed", "array_items", ["uid", "first_index"], postgresql_where=sa.text("state = 'failed'")
    )


def downgrade() -> None:
    op.drop_table("array_items")
