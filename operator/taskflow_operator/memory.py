"""What the operator knows at the moment. All of it can be rebuilt from the API server and Redis; nothing lives here only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task, TaskStatus

OUTCOMES = 10_000
"""Ends of Tasks that are remembered, so that those who depend on them need no request."""
FORGET_SECONDS = 900.0
"""How long a closed Task's uid is remembered, so that a late watch event or list page does not bring it back."""


@dataclass
class Known:
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

    _known: dict[str, Known] = field(default_factory=dict)
    _closed: dict[str, float] = field(default_factory=dict)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    _dependents: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    _outcomes: dict[tuple[str, str], Phase] = field(default_factory=dict)
    _outcome_order: deque[tuple[str, str]] = field(default_factory=deque)

    def add(self, task: Task) -> bool:
        """Take note of a Task; False if it is known or was closed lately."""
        if task.uid in self._known or task.uid in self._closed:
            return False
        self._known[task.uid] = Known(task)
        self._names[task.namespace, task.name] = task.uid
        self._outcomes.pop((task.namespace, task.name), None)
        for dependency in task.spec.depends_on:
            self._dependents.setdefault((task.namespace, dependency.name), set()).add(task.uid)
        return True

    def get(self, uid: str) -> Known | None:
        """An open Task; None if there is none of that uid."""
        return self._known.get(uid)

    def by_name(self, namespace: str, name: str) -> Known | None:
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
        if status.attempt != known.task.status.attempt:
            known.sequence = -1
        known.task = known.task.model_copy(update={"status": status})
        return known.task

    def close(self, uid: str, now: float) -> None:
        """The Task needs no more work.

        Args:
            uid: the Task.
            now: monotonic seconds.
        """
        known = self._known.pop(uid, None)
        self._closed[uid] = now
        if known is None:
            return
        task = known.task
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

    def __iter__(self) -> Iterator[Known]:
        """A snapshot of all open Tasks."""
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)


@dataclass
class PoolQueues:
    """The queues of each WorkerPool."""

    _pools: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def put(self, namespace: str, name: str, queues: frozenset[str]) -> bool:
        """Take note of a pool; True if that changed anything."""
        former = self._pools.get((namespace, name))
        self._pools[namespace, name] = queues
        return former != queues

    def remove(self, namespace: str, name: str) -> bool:
        """The pool is gone; True if it was known."""
        return self._pools.pop((namespace, name), None) is not None

    def queues(self, namespace: str) -> frozenset[str]:
        """Queues that some WorkerPool of the namespace serves."""
        return frozenset().union(*(queues for (where, _), queues in self._pools.items() if where == namespace))
