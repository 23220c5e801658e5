"""The history database behind the ports of the API: one PostgreSQL transaction for each call."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_core.domain.items import ItemRow, ItemState
from taskflow_core.store import items, operations, repository, schedules
from taskflow_core.store.engine import transaction
from taskflow_core.store.operations import OperationRow
from taskflow_core.store.repository import Filter
from taskflow_core.store.rows import AttemptRow, TaskRow, TimelineRow
from taskflow_core.store.schedules import ListedRun, RunKey, RunOutcome, RunRow


class PostgresHistory:
    """`History` on a connection pool."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # Reads need no transaction; autocommit saves its round trips.
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def list_tasks(
        self, namespace: str, wanted: Filter, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[TaskRow]:
        """See `repository.list_tasks`."""
        async with transaction(self._reading) as connection:
            return await repository.list_tasks(connection, namespace, wanted, after=after, limit=limit)

    async def get_task(self, namespace: str, name: str) -> TaskRow | None:
        """See `repository.get_task`."""
        async with transaction(self._reading) as connection:
            return await repository.get_task(connection, namespace, name)

    async def get_runs(self, uid: str) -> tuple[list[AttemptRow], list[TimelineRow]]:
        """See `repository.get_attempts` and `get_timeline`."""
        async with transaction(self._reading) as connection:
            return await repository.get_attempts(connection, uid), await repository.get_timeline(connection, uid)

    async def list_items(self, uid: str, *, state: ItemState | None, after: int, limit: int) -> list[ItemRow]:
        """See `items.items_of`."""
        async with transaction(self._reading) as connection:
            return await items.items_of(connection, uid, state=state, after=after, limit=limit)

    async def latest_starts(self, namespace: str, queue: str, *, since: datetime, limit: int) -> list[datetime]:
        """See `repository.latest_starts`."""
        async with transaction(self._reading) as connection:
            return await repository.latest_starts(connection, namespace, queue, since=since, limit=limit)

    async def start_operation(self, row: OperationRow) -> bool:
        """See `operations.start`."""
        async with transaction(self._engine) as connection:
            return await operations.start(connection, row)

    async def get_operation(self, namespace: str, id_: str) -> OperationRow | None:
        """See `operations.get`."""
        async with transaction(self._reading) as connection:
            return await operations.get(connection, namespace, id_)

    async def list_operations(
        self, namespace: str, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[OperationRow]:
        """See `operations.page`."""
        async with transaction(self._reading) as connection:
            return await operations.page(connection, namespace, after=after, limit=limit)

    async def remove_operation(self, namespace: str, id_: str) -> bool:
        """See `operations.remove`."""
        async with transaction(self._engine) as connection:
            return await operations.remove(connection, namespace, id_)

    async def lease_operation(self, holder: str) -> OperationRow | None:
        """See `operations.take`."""
        async with transaction(self._engine) as connection:
            return await operations.take(connection, holder)

    async def save_operation(self, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
        """See `operations.save`."""
        async with transaction(self._engine) as connection:
            return await operations.save(connection, row, holder, keep=keep)

    async def list_schedule_runs(
        self,
        namespace: str,
        schedule: str,
        *,
        outcomes: Collection[RunOutcome],
        backfill: str | None,
        after: RunKey | None,
        limit: int,
    ) -> list[ListedRun]:
        """See `schedules.list_runs`."""
        async with transaction(self._reading) as connection:
            return await schedules.list_runs(
                connection, namespace, schedule, outcomes=outcomes, backfill=backfill, after=after, limit=limit
            )

    async def knows_schedule(self, namespace: str, name: str) -> bool:
        """See `schedules.known`."""
        async with transaction(self._reading) as connection:
            return await schedules.known(connection, namespace, name)

    async def record_schedule_run(self, run: RunRow) -> None:
        """See `schedules.record_runs`."""
        async with transaction(self._engine) as connection:
            await schedules.record_runs(connection, [run])

    async def check(self) -> None:
        """See `repository.check`."""
        async with transaction(self._reading) as connection:
            await repository.check(connection)
