"""Writes to the history what became of ticks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from taskflow_core.batching import Batcher, isolate_failures
from taskflow_core.errors import TaskflowError, Unavailable
from taskflow_core.store.schedules import RunRow, ScheduleRow
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.schedules.ports import RunStore

log = get_logger(__name__)
PATIENCE_SECONDS = 2.0
"""A schedule waits so long for the history, and then goes on."""
RETRY_SECONDS = 5.0
MAX_ROWS = 5000
"""A transaction takes the rows of further schedules until it has this many."""
KEPT = 20_000
"""Runs that are kept while the history does not answer; beyond, the oldest are lost."""

_Entry = tuple[ScheduleRow, Sequence[RunRow]]


class RunRecorder:
    """Stores runs of schedules before their cursor moves, while the database answers. While it does not, runs go on,
    and what became of them is kept in memory: a crash then loses rows of the history, never a run.

    Args:
        store: the database.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._batcher: Batcher[_Entry, None] = Batcher(
            self._write, weight=lambda entry: 1 + len(entry[1]), max_weight=MAX_ROWS
        )
        self._schedules: dict[str, ScheduleRow] = {}
        self._deleted: set[str] = set()
        self._runs: deque[RunRow] = deque(maxlen=KEPT)
        self._kept = asyncio.Event()
        """Something waits for the database."""

    async def record(self, schedule: ScheduleRow, runs: Sequence[RunRow]) -> None:
        """Store a schedule and some of its runs; returns when they are stored, or kept until they can be."""
        if self._kept.is_set():
            # It did not answer a moment ago. What is newer waits behind what is older.
            self._keep(schedule, runs)
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._batcher.submit((schedule, runs))
        except (Unavailable, TimeoutError) as error:
            if isinstance(error, Unavailable):
                dependency_health.failed(error)
            self._keep(schedule, runs)
        except TaskflowError as error:
            self._refused(schedule, error)

    def deleted(self, uid: str) -> None:
        """A schedule is gone; its runs stay."""
        self._schedules.pop(uid, None)
        self._deleted.add(uid)
        self._kept.set()

    def _keep(self, schedule: ScheduleRow, runs: Sequence[RunRow]) -> None:
        self._schedules[schedule.uid] = schedule
        if (lost := len(self._runs) + len(runs) - KEPT) > 0:
            log.warning("runs_not_recorded", count=lost)
        self._runs.extend(runs)
        self._kept.set()

    async def run(self) -> None:
        """Store what is kept, until cancelled."""
        while True:
            await self._kept.wait()
            try:
                await self._store_kept()
            except TaskflowError as error:
                dependency_health.failed(error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _store_kept(self) -> None:
        while self._schedules or self._runs or self._deleted:
            schedules, deleted = list(self._schedules.values())[:MAX_ROWS], sorted(self._deleted)
            runs = [self._runs[number] for number in range(min(len(self._runs), MAX_ROWS))]
            await isolate_failures(schedules, self._store.store_schedules, self._refused)
            await isolate_failures(runs, self._store.record_runs, self._refused)
            for uid in deleted:
                await self._store.schedule_deleted(uid)
                self._deleted.discard(uid)
            for row in schedules:
                # A newer one may have come meanwhile.
                if self._schedules.get(row.uid) is row:
                    del self._schedules[row.uid]
            # Meanwhile some may have been dropped at this end, and others added at the other.
            done = set(map(id, runs))
            while self._runs and id(self._runs[0]) in done:
                self._runs.popleft()
        self._kept.clear()

    async def stop(self) -> None:
        """Cancel the transaction that runs."""
        await self._batcher.stop()

    async def _write(self, batch: Sequence[_Entry]) -> list[None]:
        await self._store.store_schedules([schedule for schedule, _ in batch])
        await self._store.record_runs([run for _, runs in batch for run in runs])
        return [None] * len(batch)

    def _refused(self, row: ScheduleRow | RunRow, error: Exception) -> None:
        name = row.name if isinstance(row, ScheduleRow) else row.schedule
        log.error("runs_refused", namespace=row.namespace, schedule=name, error=str(error))
