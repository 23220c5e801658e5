"""The history in PostgreSQL, as the operator reads and writes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

from taskflow_core.domain.events import Event
from taskflow_core.domain.items import ItemHistory, ItemRow
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import Task
from taskflow_core.ledger.cache_versions import CacheVersions
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import items, repository, schedules
from taskflow_core.store.engine import create_engine, transaction


class Database:
    """Reads and writes the history on an engine of its own. Every method raises `Unavailable`, and may be repeated.

    Args:
        settings: where PostgreSQL is.
        versions: told before and after each change, so that no cached answer outlives it.
    """

    def __init__(self, settings: DatabaseSettings, versions: CacheVersions) -> None:
        self._engine = create_engine(settings, application_name="taskflow-operator", pool_size=2)
        self._versions = versions

    async def apply_events(self, events: Sequence[Event]) -> None:
        """Apply events to the tables, in one transaction."""
        touched: Collection[str] = ()
        async with transaction(self._engine) as connection:
            await repository.apply_events(connection, events)
            if self._versions.wanted:
                touched = await repository.namespaces_of(connection, {event.uid for event in events})
            await self._versions.changing(touched)
        await self._versions.changed(touched)

    async def upsert_tasks(self, tasks: Sequence[Task]) -> None:
        """Mirror Tasks as they stand, in one transaction."""
        touched = {task.namespace for task in tasks}
        async with transaction(self._engine) as connection:
            await repository.upsert_tasks(connection, tasks)
            await self._versions.changing(touched)
        await self._versions.changed(touched)

    async def outcome(self, namespace: str, name: str) -> Phase | None:
        """Terminal phase of the latest Task of that name; None if there is none, or it never finished."""
        async with transaction(self._engine) as connection:
            row = await repository.get_task(connection, namespace, name)
        return Phase(row.phase) if row is not None and Phase(row.phase).terminal else None

    async def name_of(self, uid: str) -> tuple[str, str] | None:
        """Namespace and name of a Task; None if the history does not know it."""
        async with transaction(self._engine) as connection:
            return await repository.name_of(connection, uid)

    async def stored(self, uids: Sequence[str]) -> set[str]:
        """Those of the uids whose end is in the history."""
        async with transaction(self._engine) as connection:
            return await repository.finished(connection, uids)

    async def past(self, uid: str) -> ItemHistory:
        """What has ended of an array."""
        async with transaction(self._engine) as connection:
            return await items.past_of(connection, uid)

    async def failed_of(self, namespace: str, uid: str) -> RangeSet | None:
        """The failed items of an array that has ended; None if there is none of that uid."""
        async with transaction(self._engine) as connection:
            return await items.failed_of(connection, namespace, uid)

    async def store_items(self, ended: Mapping[str, Sequence[ItemRow]]) -> None:
        """Add items that ended, in one transaction."""
        async with transaction(self._engine) as connection:
            await items.store_items(connection, ended, datetime.now(UTC))

    async def store_schedules(self, rows: Sequence[schedules.ScheduleRow]) -> None:
        """Store schedules as they stand, in one transaction."""
        async with transaction(self._engine) as connection:
            await schedules.upsert_schedules(connection, rows)

    async def schedule_deleted(self, uid: str) -> None:
        """Note that a schedule is gone; its runs stay."""
        async with transaction(self._engine) as connection:
            await schedules.schedule_deleted(connection, uid, datetime.now(UTC))

    async def record_runs(self, runs: Sequence[schedules.RunRow]) -> None:
        """Store what became of ticks, in one transaction, and now and then drop the oldest of their schedules."""
        async with transaction(self._engine) as connection:
            await schedules.record_runs(connection, runs)
            if uids := schedules.due_for_pruning(runs):
                await schedules.prune_runs(connection, uids)

    async def ran(self, namespace: str, names: Collection[str]) -> dict[str, str]:
        """Uids of the Tasks of these names that exist or existed, by name."""
        async with transaction(self._engine) as connection:
            return await schedules.ran(connection, namespace, names)

    async def revision(self) -> str | None:
        """Revision of the schema; None if there is none."""
        async with transaction(self._engine) as connection:
            return await repository.revision(connection)

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()
