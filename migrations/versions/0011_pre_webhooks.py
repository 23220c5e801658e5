"""Webhooks: endpoints, deliveries, and what makes deliveries of Tasks that end.

Only adds. The triggers write in the transaction that writes the Task's row, whichever version of the operator that is
of.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision: str | None = "0010"
branch_labels: str | None = None
depends_on: str | None = None

_TIME = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""
_FUNCTION = f"""
CREATE FUNCTION add_webhook_deliveries() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO webhook_deliveries
        (id, webhook_id, namespace, event_id, type, payload, task_uid, task_name, created_at,
         state, attempts, tries, next_at)
    SELECT
        replace(gen_random_uuid()::text, '-', ''), w.id, NEW.namespace, 'evt_' || NEW.uid || '_' || lower(NEW.phase),
        'task.' || lower(NEW.phase),
        jsonb_build_object(
            'type', 'task.' || lower(NEW.phase),
            'timestamp', {_TIME.format("coalesce(NEW.finished_at, now())")},
            'data', jsonb_build_object(
                'namespace', NEW.namespace, 'name', NEW.name, 'uid', NEW.uid, 'handler', NEW.handler,
                'queue', NEW.queue,
                'phase', NEW.phase, 'reason', NEW.reason, 'attempt', NEW.attempt,
                'createdAt', {_TIME.format("NEW.created_at")}, 'startedAt', {_TIME.format("NEW.started_at")},
                'finishedAt', {_TIME.format("NEW.finished_at")}
            )
        )::text,
        NEW.uid, NEW.name, now(), 'Pending', 0, '[]', now()
    FROM webhooks w
    WHERE w.namespace = NEW.namespace AND w.disabled_at IS NULL AND w.types ? ('task.' || lower(NEW.phase))
        AND (w.every_task OR (jsonb_typeof(NEW.spec -> 'notify') = 'array' AND (NEW.spec -> 'notify') ? w.name))
    ON CONFLICT (webhook_id, event_id) DO NOTHING;
    RETURN NULL;
END
$body$
"""  # noqa: S608 - constants
_ENDED = "NEW.phase IN ('Succeeded', 'Failed', 'Cancelled')"


def upgrade() -> None:
    at = sa.DateTime(timezone=True)
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("types", JSONB, nullable=False),
        sa.Column("every_task", sa.Boolean, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("old_secret", sa.LargeBinary),
        sa.Column("old_secret_until", at),
        sa.Column("created_at", at, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("disabled_at", at),
        sa.Column("disabled_reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_name", "webhooks", ["namespace", "name"], unique=True)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("webhook_id", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("task_uid", sa.Text),
        sa.Column("task_name", sa.Text),
        sa.Column("created_at", at, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("tries", JSONB, nullable=False),
        sa.Column("next_at", at),
        sa.Column("finished_at", at),
        sa.Column("lease", sa.Text),
        sa.Column("leased_until", at),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
    )
    table = "webhook_deliveries"
    op.create_index("ix_webhook_deliveries_event", table, ["webhook_id", "event_id"], unique=True)
    newest_first = (sa.text("created_at DESC"), sa.text("id DESC"))
    op.create_index("ix_webhook_deliveries_page", table, ["webhook_id", *newest_first])
    pending, finished = sa.text("state = 'Pending'"), sa.text("finished_at IS NOT NULL")
    op.create_index("ix_webhook_deliveries_due", table, ["next_at"], postgresql_where=pending)
    op.create_index("ix_webhook_deliveries_old", table, ["finished_at"], postgresql_where=finished)
    op.execute(_FUNCTION)
    # WHEN of an insert knows no former row, so there are two.
    op.execute(
        f"CREATE TRIGGER webhooks_of_inserted AFTER INSERT ON tasks FOR EACH ROW WHEN ({_ENDED}) "
        "EXECUTE FUNCTION add_webhook_deliveries()"
    )
    op.execute(
        f"CREATE TRIGGER webhooks_of_updated AFTER UPDATE OF phase ON tasks FOR EACH ROW "
        f"WHEN ({_ENDED} AND OLD.phase IS DISTINCT FROM NEW.phase) EXECUTE FUNCTION add_webhook_deliveries()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER webhooks_of_updated ON tasks")
    op.execute("DROP TRIGGER webhooks_of_inserted ON tasks")
    op.execute("DROP FUNCTION add_webhook_deliveries()")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
