"""The open Tasks that the operator knows. All of it can be rebuilt from the API server and Redis; nothing is kept here
only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.sharing import shared, with_status
from taskflow_core.domain.task import Task, TaskStatus
from taskflow_operator.tasks.queue_counts import QueueCounts

K = TypeVar("K")
OUTCOMES = 10_000
"""Ends of Tasks that are remembered, so that Tasks which depend on them need no request."""
FORGET_SECONDS = 900.0
"""How long the uid of a closed Task is remembered, so that a late watch event or list page does not bring it back."""


@dataclass(slots=True)
class OpenTask:
    """An open Task and how far its current attempt is. Only `OpenTasks` changes `closing` and `held`."""

    task: Task
    sequence: int = -1
    """Sequence of the latest event of the current attempt that was applied."""
    position: tuple[int, ...] = ()
    """Stream id of the latest applied event, among those that may come many times in an attempt."""
    closing: bool = False
    """The end of its attempt is being written: it is not dispatched."""
    held: bool = False
    """Redis lost it. It is not dispatched until workers had time to enter again what they run."""
    acyclic: bool = False
    """It was in no cycle when it was looked at, so it need not be searched again: `dependsOn` never changes, and a
    cycle that is closed later is found at the Task that closes it."""


class OpenTasks:
    """Tasks that still need work, by uid."""

    def __init__(self) -> None:
        self._known: dict[str, OpenTask] = {}
        self._closed: dict[str, float] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._dependents: dict[tuple[str, str], set[str]] = {}
        self._children: dict[str, set[str]] = {}
        """By the uid of the owner."""
        self._outcomes: dict[tuple[str, str], Phase] = {}
        self._outcome_order: deque[tuple[str, str]] = deque()
        self._isolated: set[str] = set()
        self._arrays: set[str] = set()
        self.queues = QueueCounts(self._task_of)
        """Counters by queue."""
        self.added: list[Callable[[Task], None]] = []
        """Called with each Task that was added. They must not raise."""

    def add(self, task: Task) -> bool:
        """Add a Task; False if it is known or was closed recently."""
        uid = task.uid
        if uid in self._known or uid in self._closed:
            return False
        self._known[uid] = OpenTask(shared(task))
        self.queues.add(task)
        if task.isolated:
            self._isolated.add(uid)
        if task.spec.array is not None:
            self._arrays.add(uid)
        self._names[task.namespace, task.name] = uid
        self._outcomes.pop((task.namespace, task.name), None)
        for dependency in task.spec.depends_on:
            self._dependents.setdefault((task.namespace, dependency.name), set()).add(uid)
        if task.owner is not None:
            self._children.setdefault(task.owner.uid, set()).add(uid)
        for tell in self.added:
            tell(task)
        return True

    def get(self, uid: str) -> OpenTask | None:
        """The open Task of that uid, if there is one."""
        return self._known.get(uid)

    def _task_of(self, uid: str) -> Task | None:
        known = self._known.get(uid)
        return None if known is None else known.task

    def namespace_of(self, uid: str) -> str:
        """Namespace of an open Task; empty if there is none of that uid."""
        known = self._known.get(uid)
        return known.task.namespace if known is not None else ""

    def namespaces(self) -> set[str]:
        """Namespaces that have open Tasks."""
        return {namespace for namespace, _ in self.queues.queues()}

    def by_name(self, namespace: str, name: str) -> OpenTask | None:
        """The open Task of that name, if there is one."""
        uid = self._names.get((namespace, name))
        return self._known.get(uid) if uid else None

    def dependents(self, namespace: str, name: str) -> frozenset[str]:
        """Uids of the open Tasks that depend on this one."""
        return frozenset(self._dependents.get((namespace, name), ()))

    def children(self, owner_uid: str) -> list[OpenTask]:
        """The open Tasks whose controller is the resource of that uid."""
        return [self._known[uid] for uid in sorted(self._children.get(owner_uid, ()))]

    def outcome(self, namespace: str, name: str) -> Phase | None:
        """How a Task ended that was closed recently."""
        return self._outcomes.get((namespace, name))

    def set_status(self, uid: str, status: TaskStatus) -> Task:
        """Replace the status of an open Task. A new attempt starts with no events applied."""
        known = self._known[uid]
        before = known.task
        if status.attempt != before.status.attempt:
            known.sequence = -1
        known.task = with_status(before, status)
        self.queues.change(before, known.task)
        return known.task

    def replace(self, task: Task) -> Task:
        """Replace an open Task whose specification changed; what identifies it and its queue stay the same."""
        known = self._known[task.uid]
        known.task = shared(task)
        return known.task

    @contextmanager
    def closing(self, uid: str) -> Iterator[None]:
        """Within the block the end of the Task's attempt is being written, and nothing else may be done with it."""
        known = self._known[uid]
        known.closing = True
        try:
            yield
        finally:
            # A Task that is no longer open stays as it is, for whoever still holds it.
            if self._known.get(uid) is known:
                known.closing = False

    def hold(self, uid: str) -> None:
        """Do not dispatch a Task until `release`."""
        self._known[uid].held = True

    def release(self, uid: str) -> bool:
        """A Task may be dispatched again; False if it is no longer open."""
        known = self._known.get(uid)
        if known is None:
            return False
        known.held = False
        return True

    def isolated(self) -> list[OpenTask]:
        """The open Tasks that run in pods of their own."""
        return [self._known[uid] for uid in self._isolated]

    def oldest_elsewhere(self) -> dict[tuple[str, str], datetime]:
        """Like `queues.oldest`, for the Tasks that it leaves out: arrays, and those in pods of their own."""
        found: dict[tuple[str, str], datetime] = {}
        for uid in self._isolated | self._arrays:
            task = self._known[uid].task
            since, place = task.status.queued_time, (task.namespace, task.spec.queue)
            if task.status.phase is Phase.QUEUED and since is not None:
                found[place] = min(found.get(place, since), since)
        return found

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
        self.queues.remove(task)
        if self._names.get((task.namespace, task.name)) == uid:
            del self._names[task.namespace, task.name]
        if task.finished and task.status.phase is not None:
            self._remember_outcome(task.namespace, task.name, task.status.phase)
        for dependency in task.spec.depends_on:
            _discard(self._dependents, (task.namespace, dependency.name), uid)
        if task.owner is not None:
            _discard(self._children, task.owner.uid, uid)

    def _remember_outcome(self, namespace: str, name: str, phase: Phase) -> None:
        self._outcomes[namespace, name] = phase
        self._outcome_order.append((namespace, name))
        if len(self._outcome_order) > OUTCOMES:
            self._outcomes.pop(self._outcome_order.popleft(), None)

    def prune(self, now: float) -> None:
        """Forget the uids of Tasks that were closed long ago."""
        for uid in [uid for uid, when in self._closed.items() if now - when > FORGET_SECONDS]:
            del self._closed[uid]

    def __iter__(self) -> Iterator[OpenTask]:
        """A snapshot of all open Tasks."""
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)


def _discard(index: dict[K, set[str]], key: K, uid: str) -> None:
    """Remove a uid from an index, and its key with the last one."""
    uids = index.get(key, set())
    uids.discard(uid)
    if not uids:
        index.pop(key, None)
