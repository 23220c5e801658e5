"""How much work waits for each pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.workerpool import WorkerPool
from taskflow_core.ledger.presence import WorkerSnapshot
from taskflow_operator.pools.scaling import Demand
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.work_queue import WorkQueue

SOON = timedelta(seconds=5)
"""Attempts that become due within this time count as demand: a pod takes as long to start."""
SILENT_MS = 10_000
"""The slots of a worker that did not report for this long do not count."""


class DemandView:
    """Computes the demand of pools.

    Args:
        tasks: the open Tasks.
        work_queue: when they become due.
        chunks: chunks of arrays in a queue of a namespace, waiting and running.
        now: the time.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        work_queue: WorkQueue,
        chunks: Callable[[str, str], tuple[int, int]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tasks = tasks
        self._work_queue = work_queue
        self._chunks = chunks
        self._now = now

    def due_soon(self) -> Mapping[tuple[str, str], int]:
        """Attempts that become due within seconds, by namespace and queue."""
        now = self._now()
        soon: dict[tuple[str, str], set[str]] = {}
        for uid in self._work_queue.due_by(now + SOON):
            known = self._tasks.get(uid)
            if known is None or known.task.status.phase is not Phase.PENDING or known.task.isolated:
                continue
            task = known.task
            starts = [when for when in (task.status.next_attempt_time, task.spec.not_before) if when is not None]
            if starts and max(starts) <= now + SOON and not task.spec.suspend:
                soon.setdefault((task.namespace, task.spec.queue), set()).add(uid)
        return {place: len(uids) for place, uids in soon.items()}

    def of(self, pool: WorkerPool, due: Mapping[tuple[str, str], int]) -> Demand:
        """The demand of a pool; `due` is what `due_soon` returned."""
        ready = leased = soon = 0
        oldest = 0.0
        for queue in pool.spec.queues:
            place = pool.namespace, queue
            waiting, running = self._chunks(*place)
            ready += self._tasks.queues.count(*place, Phase.QUEUED) + waiting
            leased += self._tasks.queues.count(*place, Phase.RUNNING) + running
            soon += due.get(place, 0)
            if (since := self._tasks.queues.oldest(*place)) is not None:
                oldest = max(oldest, (self._now() - since).total_seconds())
        return Demand(ready, leased, soon, oldest)


def serving_slots(snapshot: WorkerSnapshot) -> Mapping[tuple[str, str], int]:
    """Slots of the workers that take work, by namespace and queue."""
    slots: Counter[tuple[str, str]] = Counter()
    for report in snapshot.reports.values():
        if report.serving and report.at_ms >= snapshot.now_ms - SILENT_MS:
            for queue in report.queues:
                slots[report.namespace, queue] += report.slots
    return slots
