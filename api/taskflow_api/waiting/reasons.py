"""Explains why a Task waits: the first thing that blocks it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Dependency, DependencyOutcome, Task

LATE_SECONDS = 30


@dataclass(frozen=True)
class PoolState:
    """The state of a WorkerPool, as far as a waiting Task depends on it."""

    name: str
    queues: tuple[str, ...]
    paused: bool = False
    drain: bool = False
    slots: int = 0
    busy: int = 0
    desired: int = 0
    stalled: str = ""
    """Why workers of the pool cannot start; empty if they can."""

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> PoolState:
        """The state from a resource, any part of which may be missing."""
        spec, status = body["spec"], body.get("status") or {}
        stalled = next(
            (each for each in status.get("conditions") or () if each["type"] == "Stalled" and each["status"] == "True"),
            None,
        )
        return cls(
            name=body["metadata"]["name"],
            queues=tuple(spec.get("queues") or ()),
            paused=bool(spec.get("paused")),
            drain=bool(spec.get("drain")),
            slots=int(status.get("slots") or 0),
            busy=int(status.get("busySlots") or 0),
            desired=int(status.get("desiredReplicas") or 0),
            stalled=f"{stalled['reason']}: {stalled.get('message', '')}" if stalled else "",
        )


@dataclass(frozen=True)
class DependencyState:
    """A Task that another one depends on."""

    dependency: Dependency
    phase: Phase | None
    """None if no Task has that name."""

    @property
    def met(self) -> bool:
        """Whether the dependency is satisfied."""
        if self.dependency.outcome is DependencyOutcome.FINISHED:
            return self.phase is not None and self.phase.terminal
        return self.phase is Phase.SUCCEEDED


@dataclass(frozen=True)
class Explanation:
    """The answer to why a Task waits."""

    waiting: bool
    reason: str
    message: str
    until: datetime | None = None
    """When the reason ends, if known."""
    in_queue: bool = False
    """Whether the Task is in its queue, or about to be, and a pool serves the queue."""


def explain(
    task: Task, dependencies: Sequence[DependencyState], pools: Sequence[PoolState], now: datetime
) -> Explanation:
    """The first thing that blocks a Task, in the order in which the operator checks.

    Args:
        task: A live Task.
        dependencies: The Tasks of `spec.dependsOn`.
        pools: All pools of the namespace.
        now: The current time.
    """
    status = task.status
    if task.finished or status.phase is Phase.RUNNING:
        message = (
            "a worker runs the Task" if status.phase is Phase.RUNNING else status.message or "the Task has finished"
        )
        return Explanation(waiting=False, reason=status.reason, message=message)
    if task.spec.cancel:
        return Explanation(
            True, Reason.CANCELLED, "spec.cancel is true: the Task ends as soon as the operator handles the change"
        )
    if task.spec.suspend:
        return Explanation(True, Reason.SUSPENDED, "spec.suspend is true: set it to false to let the Task run")
    if status.phase is not Phase.QUEUED and (blocked := _blocked(task, dependencies, now)) is not None:
        return blocked
    if task.isolated:
        return Explanation(True, "StartingPod", status.message or "the pod of the Task has not started yet")
    return _unserved(task, pools) or _queued(task, pools, now)


def _blocked(task: Task, dependencies: Sequence[DependencyState], now: datetime) -> Explanation | None:
    if task.status.reason == Reason.HISTORY_UNAVAILABLE:
        return Explanation(True, Reason.HISTORY_UNAVAILABLE, task.status.message)
    if (start := task.spec.not_before) is not None and start > now:
        return Explanation(True, Reason.NOT_BEFORE, f"spec.notBefore is {start:%Y-%m-%dT%H:%M:%SZ}", start)
    unmet = [each for each in dependencies if not each.met]
    if unmet:
        names = ", ".join(f"{each.dependency.name} ({each.phase or 'does not exist'})" for each in unmet)
        return Explanation(True, Reason.DEPENDENCY_WAITING, f"waits for {len(unmet)} of spec.dependsOn: {names}")
    due = task.status.next_attempt_time
    if due is not None and due > now:
        last, reason = task.status.last_error, task.status.delay_reason
        why = f"; attempt {last.attempt} ended with {last.reason}: {last.message}" if last else ""
        if reason is Reason.AGAIN:
            why = "; the handler asked to be run again then"
        message = f"attempt {task.status.attempt} follows at {due:%Y-%m-%dT%H:%M:%SZ}{why}"
        return Explanation(True, reason, message, due)
    return None


def _unserved(task: Task, pools: Sequence[PoolState]) -> Explanation | None:
    queue = task.spec.queue
    serving = [pool for pool in pools if queue in pool.queues]
    if not serving:
        others = sorted({each for pool in pools for each in pool.queues})
        served = f"served queues: {', '.join(others)}" if others else "the namespace has no WorkerPool"
        return Explanation(True, Reason.NO_WORKER_POOL, f"no WorkerPool serves queue {queue!r}; {served}")
    active = [pool for pool in serving if not pool.paused and not pool.drain]
    if not active:
        reason = "PoolDraining" if all(pool.drain for pool in serving) else "PoolPaused"
        states = ", ".join(f"{pool.name} {'is draining' if pool.drain else 'is paused'}" for pool in serving)
        return Explanation(True, reason, f"no active pool serves queue {queue!r}: {states}")
    if any(pool.slots for pool in active):
        return None
    if all(pool.stalled for pool in active):
        causes = "; ".join(f"pool {pool.name}: {pool.stalled}" for pool in active)
        return Explanation(True, "PoolStalled", f"workers cannot start: {causes}")
    wanted = sum(pool.desired for pool in active)
    names = ", ".join(pool.name for pool in active)
    if wanted:
        return Explanation(True, "WorkersStarting", f"{wanted} workers of {names} are starting", in_queue=True)
    return Explanation(True, "NoWorkers", f"{names} has no workers and is scaled to zero")


def _queued(task: Task, pools: Sequence[PoolState], now: datetime) -> Explanation:
    active = [pool for pool in pools if task.spec.queue in pool.queues and not pool.paused and not pool.drain]
    slots, busy = sum(pool.slots for pool in active), sum(pool.busy for pool in active)
    names = ", ".join(pool.name for pool in active)
    if task.status.phase is not Phase.QUEUED and (now - task.created).total_seconds() > LATE_SECONDS:
        status = task.status.message or "is the operator running?"
        message = f"nothing blocks the Task, but the operator has not queued it yet: {status}"
        return Explanation(True, "NotQueuedYet", message, in_queue=True)
    if busy >= slots:
        return Explanation(True, "AllSlotsBusy", f"all {slots} slots of {names} are busy", in_queue=True)
    message = f"{slots - busy} of {slots} slots of {names} are free: the Task starts soon"
    return Explanation(True, Reason.WAITING_FOR_WORKER, message, in_queue=True)
