"""Why a Task waits, in words. Pure."""

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
    """What matters of a WorkerPool to a Task that waits for it."""

    name: str
    queues: tuple[str, ...]
    paused: bool = False
    drain: bool = False
    slots: int = 0
    busy: int = 0
    desired: int = 0
    stalled: str = ""
    """Why its workers cannot start; empty if they can."""

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> PoolState:
        """Read a Kubernetes object, whatever is missing in it."""
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
class Awaited:
    """A Task that another waits for."""

    wanted: Dependency
    phase: Phase | None
    """None if there is none of that name."""

    @property
    def met(self) -> bool:
        """It ended as it should."""
        if self.wanted.outcome is DependencyOutcome.FINISHED:
            return self.phase is not None and self.phase.terminal
        return self.phase is Phase.SUCCEEDED


@dataclass(frozen=True)
class Explanation:
    """Why."""

    waiting: bool
    reason: str
    message: str
    until: datetime | None = None
    """When that reason ends, if it is known."""
    in_line: bool = False
    """It stands in its queue, or is about to, and something takes Tasks out of it."""


def explain(task: Task, awaited: Sequence[Awaited], pools: Sequence[PoolState], now: datetime) -> Explanation:
    """The first of the things that hold a Task, in the order in which the operator asks.

    Args:
        task: live.
        awaited: the Tasks of `spec.dependsOn`.
        pools: all of the namespace.
        now: the time.
    """
    status = task.status
    if task.finished or status.phase is Phase.RUNNING:
        words = "a worker runs it" if status.phase is Phase.RUNNING else status.message or "it has ended"
        return Explanation(waiting=False, reason=status.reason, message=words)
    if task.spec.cancel:
        return Explanation(True, Reason.CANCELLED, "spec.cancel is true: it ends as soon as the operator has seen it")
    if task.spec.suspend:
        return Explanation(True, Reason.SUSPENDED, "spec.suspend is true: set it to false to let the Task run")
    if status.phase is not Phase.QUEUED and (held := _held(task, awaited, now)) is not None:
        return held
    if task.isolated:
        return Explanation(True, "StartingPod", status.message or "the pod of its own has not begun yet")
    return _unserved(task, pools) or _in_line(task, pools, now)


def _held(task: Task, awaited: Sequence[Awaited], now: datetime) -> Explanation | None:
    if (start := task.spec.not_before) is not None and start > now:
        return Explanation(True, Reason.NOT_BEFORE, f"spec.notBefore is {start:%Y-%m-%dT%H:%M:%SZ}", start)
    unmet = [each for each in awaited if not each.met]
    if unmet:
        words = ", ".join(f"{each.wanted.name} ({each.phase or 'does not exist'})" for each in unmet)
        return Explanation(True, Reason.DEPENDENCY_WAITING, f"waits for {len(unmet)} of spec.dependsOn: {words}")
    due = task.status.next_attempt_time
    if due is not None and due > now:
        last = task.status.last_error
        why = f"; attempt {last.attempt} ended with {last.reason}: {last.message}" if last else ""
        words = f"attempt {task.status.attempt} follows at {due:%Y-%m-%dT%H:%M:%SZ}{why}"
        return Explanation(True, Reason.BACKING_OFF, words, due)
    return None


def _unserved(task: Task, pools: Sequence[PoolState]) -> Explanation | None:
    queue = task.spec.queue
    serving = [pool for pool in pools if queue in pool.queues]
    if not serving:
        others = sorted({each for pool in pools for each in pool.queues})
        served = f"served are {', '.join(others)}" if others else "there is no WorkerPool"
        return Explanation(True, Reason.NO_WORKER_POOL, f"no WorkerPool serves queue {queue!r}; {served}")
    taking = [pool for pool in serving if not pool.paused and not pool.drain]
    if not taking:
        reason = "PoolDraining" if all(pool.drain for pool in serving) else "PoolPaused"
        words = ", ".join(f"{pool.name} {'drains' if pool.drain else 'is paused'}" for pool in serving)
        return Explanation(True, reason, f"no pool takes from queue {queue!r}: {words}")
    if any(pool.slots for pool in taking):
        return None
    if all(pool.stalled for pool in taking):
        words = "; ".join(f"pool {pool.name}: {pool.stalled}" for pool in taking)
        return Explanation(True, "PoolStalled", f"workers cannot start: {words}")
    wanted = sum(pool.desired for pool in taking)
    names = ", ".join(pool.name for pool in taking)
    if wanted:
        return Explanation(True, "WorkersStarting", f"{wanted} workers of {names} start", in_line=True)
    return Explanation(True, "NoWorkers", f"{names} has no workers at the moment and wants none")


def _in_line(task: Task, pools: Sequence[PoolState], now: datetime) -> Explanation:
    taking = [pool for pool in pools if task.spec.queue in pool.queues and not pool.paused and not pool.drain]
    slots, busy = sum(pool.slots for pool in taking), sum(pool.busy for pool in taking)
    names = ", ".join(pool.name for pool in taking)
    if task.status.phase is not Phase.QUEUED and (now - task.created).total_seconds() > LATE_SECONDS:
        words = (
            f"nothing holds it, and the operator has not queued it: {task.status.message or 'is the operator running?'}"
        )
        return Explanation(True, "NotQueuedYet", words, in_line=True)
    if busy >= slots:
        return Explanation(True, "AllSlotsBusy", f"all {slots} slots of {names} are busy", in_line=True)
    words = f"{slots - busy} of {slots} slots of {names} are free: it is taken within moments"
    return Explanation(True, Reason.WAITING_FOR_WORKER, words, in_line=True)
