"""Alembic's entry: `taskflow_core.store.migrate` gives it a connection; there is no offline mode."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from taskflow_core.store.migrate import ADVISORY_LOCK
from taskflow_core.store.tables import metadata


def migrate() -> None:
    """All steps in one transaction, one migrator at a time.

    Two that start together would both read the same revision: the second waits for the first at the advisory lock and
    then finds nothing left to do. DDL itself waits 5 s at most for a table, because whoever queues behind it waits too.
    """
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(text("SET LOCAL statement_timeout = '600s'"))
        context.run_migrations()


migrate()
