"""What the operator knows at the moment. All of it can be rebuilt from the API server and Redis; nothing lives here only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from taskflow_core.domain.task import Task, TaskStatus

FORGET_SECONDS = 900.0
"""How long a closed Task's uid is remembered, so that a late watch event or list page does not bring it back."""


@dataclass
class Known:
    """An open Task and how far its current attempt has come."""

    task: Task
    sequence: int = -1
    """Sequence of the latest event taken for the current attempt."""
    closing: bool = False
    """Its attempt ended and that is being written: do not dispatch it."""
    held: bool = False
    """Redis forgot it; until workers had time to enter again what they run, do not dispatch it."""


@dataclass
class OpenTasks:
    """Tasks that still need work, by uid."""

    _known: dict[str, Known] = field(default_factory=dict)
    _closed: dict[str, float] = field(default_factory=dict)

    def add(self, task: Task) -> bool:
        """Take note of a Task; False if it is known or was closed lately."""
        if task.uid in self._known or task.uid in self._closed:
            return False
        self._known[task.uid] = Known(task)
        return True

    def get(self, uid: str) -> Known | None:
        """An open Task; None if there is none of that uid."""
        return self._known.get(uid)

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
        self._known.pop(uid, None)
        self._closed[uid] = now

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
