"""What the operator knows at the moment. All of it can be rebuilt from the API server and Redis; nothing lives here only."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.sharing import shared, with_status
from taskflow_core.domain.task import Task, TaskStatus

OUTCOMES = 10_000
"""Ends of Tasks that are remembered, so that those who depend on them need no request."""
STALE_PLACES = 1000
"""Of each queue, in the order of its Tasks by age: so many that are no longer queued are kept until they come to the front."""
FORGET_SECONDS = 900.0
"""How long a closed Task's uid is remembered, so that a late watch event or list page does not bring it back."""


@dataclass(slots=True)
class OpenTask:
    """An open Task and how far its current attempt has come."""

    task: Task
    sequence: int = -1
    """Sequence of the latest event taken for the current attempt."""
    position: tuple[int, ...] = ()
    """Stream id of the latest event taken of those that may come many times in an attempt."""
    closing: bool = False
    """Its attempt ended and that is being written: do not dispatch it."""
    held: bool = False
    """Redis forgot it; until workers had time to enter again what they run, do not dispatch it."""


@dataclass
class OpenTasks:
    """Tasks that still need work, by uid."""

    _known: dict[str, OpenTask] = field(default_factory=dict)
    _closed: dict[str, float] = field(default_factory=dict)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _dependents: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    _outcomes: dict[tuple[str, str], Phase] = field(default_factory=dict)
    _outcome_order: deque[tuple[str, str]] = field(default_factory=deque)
    _counts: Counter[tuple[str, str, Phase | None]] = field(default_factory=Counter)
    _queued: dict[tuple[str, str], list[tuple[datetime, str]]] = field(default_factory=dict)
    """By namespace and queue, since when Tasks are queued; a heap, with places of those that no longer are."""
    _isolated: set[str] = field(default_factory=set)
    _arrays: set[str] = field(default_factory=set)
    _depths: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By namespace, queue and state, what `depth` tells."""
    _places: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By namespace and queue, its open Tasks."""

    def add(self, task: Task) -> bool:
        """Take note of a Task; False if it is known or was closed lately."""
        if task.uid in self._known or task.uid in self._closed:
            return False
        self._known[task.uid] = OpenTask(shared(task))
        self._places[task.namespace, task.spec.queue] += 1
        self._count(task, 1)
        if task.isolated:
            self._isolated.add(task.uid)
        if task.spec.array is not None:
            self._arrays.add(task.uid)
        self._names[task.namespace, task.name] = task.uid
        self._outcomes.pop((task.namespace, task.name), None)
        for dependency in task.spec.depends_on:
            self._dependents.setdefault((task.namespace, dependency.name), set()).add(task.uid)
        return True

    def get(self, uid: str) -> OpenTask | None:
        """An open Task; None if there is none of that uid."""
        return self._known.get(uid)

    def namespace_of(self, uid: str) -> str:
        """Where an open Task is; empty if there is none of that uid."""
        known = self._known.get(uid)
        return known.task.namespace if known is not None else ""

    def by_name(self, namespace: str, name: str) -> OpenTask | None:
        """An open Task by its name."""
        uid = self._names.get((namespace, name))
        return self._known.get(uid) if uid else None

    def waiting_for(self, namespace: str, name: str) -> frozenset[str]:
        """Uids of the open Tasks that depend on this one."""
        return frozenset(self._dependents.get((namespace, name), ()))

    def outcome(self, namespace: str, name: str) -> Phase | None:
        """How a Task ended that was closed lately."""
        return self._outcomes.get((namespace, name))

    def set_status(self, uid: str, status: TaskStatus) -> Task:
        """Replace the status of an open Task; a new attempt starts its events anew."""
        known = self._known[uid]
        self._count(known.task, -1)
        if status.attempt != known.task.status.attempt:
            known.sequence = -1
        known.task = with_status(known.task, status)
        self._count(known.task, 1)
        return known.task

    def isolated(self) -> list[OpenTask]:
        """The open Tasks that run in pods of their own."""
        return [self._known[uid] for uid in self._isolated]

    def _count(self, task: Task, by: int) -> None:
        status, place = task.status, (task.namespace, task.spec.queue)
        if (state := _state(task)) is not None:
            self._depths[*place, state] += by
        # An array is as many as its chunks, which are counted elsewhere.
        if task.isolated or task.spec.array is not None:
            return
        self._counts[*place, status.phase] += by
        if by > 0 and status.phase is Phase.QUEUED and status.queued_time is not None:
            heap = self._queued.setdefault(place, [])
            heapq.heappush(heap, (status.queued_time, task.uid))
            if len(heap) > 2 * self._counts[*place, Phase.QUEUED] + STALE_PLACES:
                # One that waits for days would keep the places of all that passed it.
                heap[:] = {each for each in heap if self._still_queued(*each)}
                heapq.heapify(heap)

    def _still_queued(self, since: datetime, uid: str) -> bool:
        known = self._known.get(uid)
        return known is not None and known.task.status.phase is Phase.QUEUED and known.task.status.queued_time == since

    def queues(self) -> set[tuple[str, str]]:
        """(namespace, queue) of all open Tasks."""
        return set(self._places)

    def count(self, namespace: str, queue: str, phase: Phase) -> int:
        """Open Tasks of a queue in that phase, of those that warm workers run."""
        return self._counts[namespace, queue, phase]

    def depth(self, namespace: str, queue: str, state: str) -> int:
        """Open Tasks of a queue that are `ready`, `leased` or `delayed`, wherever they run; an array is one."""
        return self._depths[namespace, queue, state]

    def oldest_apart(self) -> dict[tuple[str, str], datetime]:
        """By namespace and queue, since when the one is queued that has been for longest, of those that `oldest` leaves out."""
        found: dict[tuple[str, str], datetime] = {}
        for uid in self._isolated | self._arrays:
            task = self._known[uid].task
            since, place = task.status.queued_time, (task.namespace, task.spec.queue)
            if task.status.phase is Phase.QUEUED and since is not None:
                found[place] = min(found.get(place, since), since)
        return found

    def oldest(self, namespace: str, queue: str) -> datetime | None:
        """Since when the one is queued that has been for longest, of those for warm workers; None if none is."""
        heap = self._queued.get((namespace, queue), [])
        while heap:
            if self._still_queued(*heap[0]):
                return heap[0][0]
            heapq.heappop(heap)
        self._queued.pop((namespace, queue), None)
        return None

    def close(self, uid: str, now: float) -> None:
        """The Task needs no more work.

        Args:
            uid: the Task.
            now: monotonic seconds.
        """
        known = self._known.pop(uid, None)
        self._isolated.discard(uid)
        self._arrays.discard(uid)
        self._closed[uid] = now
        if known is None:
            return
        task = known.task
        place = (task.namespace, task.spec.queue)
        self._places[place] -= 1
        if not self._places[place]:
            del self._places[place]
        self._count(task, -1)
        if self._names.get((task.namespace, task.name)) == uid:
            del self._names[task.namespace, task.name]
        if task.finished and task.status.phase is not None:
            self._outcomes[task.namespace, task.name] = task.status.phase
            self._outcome_order.append((task.namespace, task.name))
            if len(self._outcome_order) > OUTCOMES:
                self._outcomes.pop(self._outcome_order.popleft(), None)
        for dependency in task.spec.depends_on:
            waiting = self._dependents.get((task.namespace, dependency.name), set())
            waiting.discard(uid)
            if not waiting:
                self._dependents.pop((task.namespace, dependency.name), None)

    def prune(self, now: float) -> None:
        """Drop what was closed long ago."""
        for uid in [uid for uid, when in self._closed.items() if now - when > FORGET_SECONDS]:
            del self._closed[uid]

    def __iter__(self) -> Iterator[OpenTask]:
        """A snapshot of all open Tasks."""
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)


def _state(task: Task) -> str | None:
    status = task.status
    if status.phase is Phase.QUEUED:
        return "ready"
    if status.phase is Phase.RUNNING:
        return "leased"
    return "delayed" if status.next_attempt_time is not None or task.spec.not_before is not None else None


@dataclass
class PoolQueues:
    """The queues of each WorkerPool, and which pools take nothing at the moment."""

    _pools: dict[tuple[str, str], tuple[frozenset[str], str | None]] = field(default_factory=dict)

    def put(self, namespace: str, name: str, queues: frozenset[str], hindrance: str | None = None) -> bool:
        """Take note of a pool, and why it takes nothing now; True if that changed anything."""
        former = self._pools.get((namespace, name))
        self._pools[namespace, name] = queues, hindrance
        return former != (queues, hindrance)

    def remove(self, namespace: str, name: str) -> bool:
        """The pool is gone; True if it was known."""
        return self._pools.pop((namespace, name), None) is not None

    def queues(self, namespace: str) -> frozenset[str]:
        """Queues that some WorkerPool of the namespace serves."""
        return frozenset().union(*(queues for (where, _), (queues, _) in self._pools.items() if where == namespace))

    def hindrance(self, namespace: str, queue: str) -> str | None:
        """Why none of the pools that serve the queue takes anything now; None if one does."""
        found = [why for (where, _), (queues, why) in self._pools.items() if where == namespace and queue in queues]
        return "; ".join(why for why in found if why) if found and all(found) else None
