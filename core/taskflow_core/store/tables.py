"""The tables of the history, as `migrations/` makes them beside the API's own; a test holds the two together.

No foreign keys: events may arrive in any order, and an attempt may be heard of before its task.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, MetaData, SmallInteger, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tasks = Table(
    "tasks",
    metadata,
    Column("uid", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("handler", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("phase", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("deleted_at", DateTime(timezone=True)),
    Column("result", JSONB(none_as_null=True)),
    Column("outputs", JSONB, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("labels", JSONB(none_as_null=True)),
    Index("ix_tasks_page", "namespace", text("created_at DESC"), text("uid DESC")),
    Index("ix_tasks_page_by_phase", "namespace", "phase", text("created_at DESC"), text("uid DESC")),
    Index(
        "ix_tasks_started",
        "namespace",
        "queue",
        text("started_at DESC"),
        postgresql_where=text("started_at IS NOT NULL"),
    ),
    Index("ix_tasks_page_by_queue", "namespace", "queue", text("created_at DESC"), text("uid DESC")),
    Index("ix_tasks_page_by_handler", "namespace", "handler", text("created_at DESC"), text("uid DESC")),
    Index("ix_tasks_labels", "labels", postgresql_using="gin"),
    Index("ix_tasks_name", "namespace", "name", text("created_at DESC"), text("uid DESC")),
)
"""One row a Task. (attempt, seq) is the order of what the row was last told: every write is guarded by it."""

attempts = Table(
    "attempts",
    metadata,
    Column("uid", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("worker", Text),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("outcome", Text),
    Column("reason", Text),
    Column("error_type", Text),
    Column("message", Text),
    Column("run_ms", BigInteger),
)
"""One row an attempt. Its start and its end are each written once; whichever comes first makes the row."""

timeline = Table(
    "timeline",
    metadata,
    Column("event_id", Text, primary_key=True),
    Column("uid", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("worker", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Index("ix_timeline_uid_at", "uid", "at"),
)
"""One row an event of the streams, under the name that it has among all streams."""

array_items = Table(
    "array_items",
    metadata,
    Column("uid", Text, primary_key=True),
    Column("first_index", Integer, primary_key=True, autoincrement=False),
    Column("last_index", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("result", JSONB(none_as_null=True)),
    Column("reason", Text),
    Column("error_type", Text),
    Column("message", Text),
    Column("ended_at", DateTime(timezone=True), nullable=False),
    Index("ix_array_items_failed", "uid", "first_index", postgresql_where=text("state = 'failed'")),
)
"""One row a stretch of neighbouring items that ended alike; rows of an array never overlap. Written once, never
changed."""

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("filter", JSONB, nullable=False),
    Column("caller", JSONB, nullable=False),
    Column("state", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("after_created_at", DateTime(timezone=True)),
    Column("after_uid", Text),
    Column("matched", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("problems", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("finished_at", DateTime(timezone=True)),
    Column("leased_until", DateTime(timezone=True)),
    Column("lease", Text),
    Index("ix_operations_page", "namespace", text("created_at DESC"), text("id DESC")),
    Index("ix_operations_running", "created_at", postgresql_where=text("finished_at IS NULL")),
)
"""One row a change of many Tasks, which the API makes; (after_created_at, after_uid) is how far it is."""

schedules = Table(
    "schedules",
    metadata,
    Column("uid", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("cursor", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Index("ix_schedules_name", "namespace", "name"),
)
"""One row a TaskSchedule, as the operator last wrote it. `cursor` only moves forward."""

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("schedule_uid", Text, primary_key=True),
    Column("tick", DateTime(timezone=True), primary_key=True),
    Column("token", Text, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("schedule", Text, nullable=False),
    Column("backfill", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("task_uid", Text),
    Column("task_name", Text),
    Column("decided_at", DateTime(timezone=True), nullable=False),
    Index(
        "ix_schedule_runs_page",
        "namespace",
        "schedule",
        text("tick DESC"),
        text("schedule_uid DESC"),
        text("token DESC"),
    ),
    Index("ix_schedule_runs_task", "namespace", "task_name", postgresql_where=text("task_name IS NOT NULL")),
)
"""One row a tick that became a Task, was skipped or missed. A run that was asked for by hand has a token, and the time
when it was asked for as its tick."""
