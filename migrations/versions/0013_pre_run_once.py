"""Runs of Tasks with `spec.rerun`. Webhooks are not told of a Task that did not run, since it ran before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0013"
down_revision: str | None = "0012"
branch_labels: str | None = None
depends_on: str | None = None

_ENDED = "NEW.phase IN ('Succeeded', 'Failed', 'Cancelled')"
_RAN = f"{_ENDED} AND NEW.reason <> 'AlreadyRan'"


def upgrade() -> None:
    at = sa.DateTime(timezone=True)
    op.create_table(
        "run_once",
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("finished_at", at, nullable=False),
        sa.Column("result", JSONB),
        sa.Column("outputs", JSONB, nullable=False),
        sa.Column("used_at", at, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("namespace", "name", "digest", name="pk_run_once"),
    )
    op.create_index("ix_run_once_used_at", "run_once", ["used_at"])
    _tell_webhooks(_RAN)


def downgrade() -> None:
    _tell_webhooks(_ENDED)
    op.drop_table("run_once")


def _tell_webhooks(when: str) -> None:
    # In one transaction: no end comes between.
    op.execute("DROP TRIGGER webhooks_of_updated ON tasks")
    op.execute("DROP TRIGGER webhooks_of_inserted ON tasks")
    op.execute(
        f"CREATE TRIGGER webhooks_of_inserted AFTER INSERT ON tasks FOR EACH ROW WHEN ({when}) "
        "EXECUTE FUNCTION add_webhook_deliveries()"
    )
    op.execute(
        f"CREATE TRIGGER webhooks_of_updated AFTER UPDATE OF phase ON tasks FOR EACH ROW "
        f"WHEN ({when} AND OLD.phase IS DISTINCT FROM NEW.phase) EXECUTE FUNCTION add_webhook_deliveries()"
    )
