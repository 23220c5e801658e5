"""Counts the open Tasks of each queue by phase, and knows which one has waited longest."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task

STALE_ENTRIES = 1000
"""A queue's heap keeps up to this many entries of Tasks that are no longer queued, until they reach its front."""
_Place = tuple[str, str]


class QueueCounts:
    """Counters by namespace and queue, kept up to date by whoever adds, changes and removes Tasks.

    Args:
        task_of: the open Task of a uid, as it is now; None if there is none.
    """

    def __init__(self, task_of: Callable[[str], Task | None]) -> None:
        self._task_of = task_of
        self._open: Counter[_Place] = Counter()
        self._phases: Counter[tuple[str, str, Phase | None]] = Counter()
        self._states: Counter[tuple[str, str, str]] = Counter()
        self._queued: dict[_Place, list[tuple[datetime, str]]] = {}
        """Since when Tasks are queued; a heap, with entries of those that no longer are."""

    def add(self, task: Task) -> None:
        """A Task is open now."""
        self._open[task.namespace, task.spec.queue] += 1
        self._count(task, 1)

    def remove(self, task: Task) -> None:
        """A Task is no longer open."""
        place = task.namespace, task.spec.queue
        self._open[place] -= 1
        if not self._open[place]:
            del self._open[place]
        self._count(task, -1)

    def change(self, before: Task, after: Task) -> None:
        """The status of an open Task was replaced."""
        self._count(before, -1)
        self._count(after, 1)

    def queues(self) -> set[_Place]:
        """(namespace, queue) of all open Tasks."""
        return set(self._open)

    def count(self, namespace: str, queue: str, phase: Phase) -> int:
        """Open Tasks of a queue in that phase that warm workers run."""
        return self._phases[namespace, queue, phase]

    def depth(self, namespace: str, queue: str, state: str) -> int:
        """Open Tasks of a queue that are `ready`, `leased` or `delayed`, however they run; an array counts as one."""
        return self._states[namespace, queue, state]

    def oldest(self, namespace: str, queue: str) -> datetime | None:
        """Since when the longest waiting Task for warm workers is queued; None if none is."""
        heap = self._queued.get((namespace, queue), [])
        while heap:
            if self._still_queued(*heap[0]):
                return heap[0][0]
            heapq.heappop(heap)
        self._queued.pop((namespace, queue), None)
        return None

    def _count(self, task: Task, by: int) -> None:
        status, place = task.status, (task.namespace, task.spec.queue)
        if (state := _state(task)) is not None:
            self._states[*place, state] += by
        # The chunks of an array are counted by its driver.
        if task.isolated or task.spec.array is not None:
            return
        self._phases[*place, status.phase] += by
        if by > 0 and status.phase is Phase.QUEUED and status.queued_time is not None:
            heap = self._queued.setdefault(place, [])
            heapq.heappush(heap, (status.queued_time, task.uid))
            if len(heap) > 2 * self._phases[*place, Phase.QUEUED] + STALE_ENTRIES:
                # A Task that waits for days would keep the entries of all that overtook it.
                heap[:] = {each for each in heap if self._still_queued(*each)}
                heapq.heapify(heap)

    def _still_queued(self, since: datetime, uid: str) -> bool:
        task = self._task_of(uid)
        return task is not None and task.status.phase is Phase.QUEUED and task.status.queued_time == since


def _state(task: Task) -> str | None:
    status = task.status
    if status.phase is Phase.QUEUED:
        return "ready"
    if status.phase is Phase.RUNNING:
        return "leased"
    return "delayed" if status.next_attempt_time is not None or task.spec.not_before is not None else None
