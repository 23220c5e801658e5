"""The history of the API in memory."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from taskflow_core.domain.items import ItemRow, ItemState
from taskflow_core.store.operations import MAX_RUNNING, OperationRow
from taskflow_core.store.repository import Filter
from taskflow_core.store.rows import AttemptRow, TaskRow, TimelineRow
from taskflow_core.store.schedules import ListedRun, RunKey, RunOutcome, RunRow

CREATED = datetime(2026, 9, 20, 12, tzinfo=UTC)


@dataclass
class FakeHistory:
    rows: list[TaskRow] = field(default_factory=list)
    items: list[ItemRow] = field(default_factory=list)
    starts: list[datetime] = field(default_factory=list)
    operations: dict[str, OperationRow] = field(default_factory=dict)
    runs: list[ListedRun] = field(default_factory=list)
    schedules: set[tuple[str, str]] = field(default_factory=set)
    """Namespace and name of those that are or were."""
    asked: Filter | None = None
    failure: Exception | None = None

    async def list_tasks(
        self,
        namespace: str,
        wanted: Filter,
        *,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[TaskRow]:
        await self.check()
        self.asked = wanted
        found = sorted(self.rows, key=lambda row: (row.created_at, row.uid), reverse=True)
        return [
            row
            for row in found
            if (after is None or (row.created_at, row.uid) < after)
            and (not wanted.phases or row.phase in wanted.phases)
            and (wanted.created_before is None or row.created_at < wanted.created_before)
        ][:limit]

    async def get_task(self, namespace: str, name: str) -> TaskRow | None:
        await self.check()
        return next((row for row in self.rows if row.name == name), None)

    async def get_runs(self, uid: str) -> tuple[list[AttemptRow], list[TimelineRow]]:
        await self.check()
        return [AttemptRow(uid, 1, "w", CREATED, None, None, None, None, None, None)], []

    async def list_items(self, uid: str, *, state: ItemState | None, after: int, limit: int) -> list[ItemRow]:
        await self.check()
        return [row for row in self.items if row.first > after and state in (None, row.state)][:limit]

    async def latest_starts(self, namespace: str, queue: str, *, since: datetime, limit: int) -> list[datetime]:
        await self.check()
        return [start for start in self.starts if start >= since][:limit]

    async def start_operation(self, row: OperationRow) -> bool:
        await self.check()
        if sum(each.finished_at is None for each in self.operations.values()) >= MAX_RUNNING:
            return False
        self.operations[row.id] = row
        return True

    async def get_operation(self, namespace: str, id_: str) -> OperationRow | None:
        found = self.operations.get(id_)
        return found if found is not None and found.namespace == namespace else None

    async def list_operations(
        self, namespace: str, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[OperationRow]:
        found = sorted(self.operations.values(), key=lambda each: (each.created_at, each.id), reverse=True)
        return [each for each in found if after is None or (each.created_at, each.id) < after][:limit]

    async def remove_operation(self, namespace: str, id_: str) -> bool:
        return self.operations.pop(id_, None) is not None

    async def lease_operation(self, holder: str) -> OperationRow | None:
        await self.check()
        return next((each for each in self.operations.values() if each.finished_at is None), None)

    async def save_operation(self, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
        await self.check()
        if row.id not in self.operations:
            return False
        self.operations[row.id] = row
        return True

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
        await self.check()
        found = sorted(self.runs, key=lambda each: each.key, reverse=True)
        return [
            each
            for each in found
            if (each.run.namespace, each.run.schedule) == (namespace, schedule)
            and (after is None or each.key < after)
            and (not outcomes or each.run.outcome in outcomes)
            and backfill in (None, each.run.backfill)
        ][:limit]

    async def knows_schedule(self, namespace: str, name: str) -> bool:
        await self.check()
        return (namespace, name) in self.schedules

    async def record_schedule_run(self, run: RunRow) -> None:
        await self.check()
        self.runs.append(ListedRun(run=run, phase=None, started_at=None, finished_at=None))

    async def check(self) -> None:
        if self.failure:
            raise self.failure
