"""What is to be done with a Task now: one pure decision over its specification, its status, what it waits for, and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import DependencyOutcome, Task
from taskflow_operator.tasks.rules.validation import invalid

ASK_AGAIN = timedelta(seconds=5)
"""For what became of a Task that others wait for, while the history does not answer."""


class Pools(Protocol):
    """Which queues are served."""

    def queues(self, namespace: str) -> frozenset[str]:
        """Queues that some WorkerPool of the namespace serves."""

    def hindrance(self, namespace: str, queue: str) -> str | None:
        """Why none of the pools that serve the queue takes anything now; None if one does."""


class DependencyState(StrEnum):
    """How far a Task is that another one waits for."""

    MISSING = "missing"
    OPEN = "open"
    SUCCEEDED = "succeeded"
    ENDED_BADLY = "ended badly"
    UNKNOWN = "unknown"
    """It was deleted or never was; the history could tell, and does not answer."""


@dataclass(frozen=True)
class Enqueue:
    """Put its current attempt into its queue."""


@dataclass(frozen=True)
class Keep:
    """It is where it belongs."""

    until: datetime | None
    """When to look again; None when something else has to happen."""


@dataclass(frozen=True)
class Hold:
    """It does not belong in its queue at the moment."""

    phase: Phase
    reason: str
    message: str
    until: datetime | None


@dataclass(frozen=True)
class End:
    """It comes to its end here: out of the queue, or asked to stop."""

    phase: Phase
    reason: Reason
    message: str


Decision = Enqueue | Keep | Hold | End


def decide(
    task: Task, pools: Pools, dependencies: Sequence[DependencyState], cycle: Sequence[str], now: datetime
) -> Decision:
    """What to do with an open Task.

    Args:
        task: not finished.
        pools: what is served.
        dependencies: states of `spec.dependsOn`, in its order.
        cycle: names of the Tasks of a dependency cycle that it is part of, itself first and last; else empty.
        now: the time.
    """
    if (end := overdue(task, now)) is not None:
        return end
    # An attempt that runs goes on when it is suspended; an array hands out nothing more.
    if task.status.phase is Phase.RUNNING and not (task.spec.array and task.spec.suspend):
        return Keep(_active_deadline(task))
    if (refusal := _refusal(task, dependencies, cycle)) is not None:
        return refusal
    if (hold := _hold(task, pools, dependencies, now)) is not None:
        return hold
    if task.status.phase is Phase.QUEUED:
        return Keep(_earliest(_queue_deadline(task), _active_deadline(task)))
    return Enqueue()


def overdue(task: Task, now: datetime) -> End | None:
    """Whether the Task has to end for what the user said, whatever it is doing."""
    spec = task.spec
    if spec.cancel:
        return End(Phase.CANCELLED, Reason.CANCELLED, "cancelled by spec.cancel")
    due = _active_deadline(task)
    if due is not None and due <= now:
        return End(
            Phase.FAILED,
            Reason.DEADLINE_EXCEEDED,
            f"activeDeadlineSeconds ({spec.active_deadline_seconds} s) passed since the first attempt started",
        )
    due = _queue_deadline(task)
    if due is not None and due <= now:
        return End(
            Phase.FAILED,
            Reason.QUEUE_TIMEOUT,
            f"no worker took it within queueTimeoutSeconds ({spec.queue_timeout_seconds} s)",
        )
    return None


def no_pool(task: Task, pools: Pools) -> str | None:
    """Why nobody will take the Task; None if somebody may."""
    served = pools.queues(task.namespace)
    if task.spec.queue in served:
        return None
    others = "queues served there: " + ", ".join(sorted(served)) if served else "there is no WorkerPool"
    return f"no WorkerPool in namespace {task.namespace!r} serves queue {task.spec.queue!r}; {others}"


def _refusal(task: Task, dependencies: Sequence[DependencyState], cycle: Sequence[str]) -> End | None:
    if (wrong := invalid(task)) is not None:
        return End(Phase.FAILED, *wrong)
    if cycle:
        return End(Phase.FAILED, Reason.DEPENDENCY_CYCLE, "dependsOn is a cycle: " + " -> ".join(cycle))
    for wanted, state in zip(task.spec.depends_on, dependencies, strict=True):
        if wanted.outcome is DependencyOutcome.SUCCEEDED and state is DependencyState.ENDED_BADLY:
            return End(Phase.FAILED, Reason.DEPENDENCY_FAILED, f"Task {wanted.name!r} of dependsOn did not succeed")
    return None


def _hold(task: Task, pools: Pools, dependencies: Sequence[DependencyState], now: datetime) -> Hold | None:
    spec, status = task.spec, task.status
    if spec.suspend:
        return Hold(Phase.SUSPENDED, Reason.SUSPENDED, "suspended by spec.suspend", None)
    if status.phase is Phase.QUEUED:
        # A pool that went away is shown, but what is queued stays queued for the next one.
        return None
    if spec.not_before is not None and spec.not_before > now:
        return Hold(
            Phase.PENDING, Reason.NOT_BEFORE, f"waits for {spec.not_before:%Y-%m-%dT%H:%M:%SZ}", spec.not_before
        )
    for wanted, state in zip(spec.depends_on, dependencies, strict=True):
        if state in (DependencyState.OPEN, DependencyState.MISSING):
            what = "to finish" if state is DependencyState.OPEN else "to be created"
            return Hold(Phase.PENDING, Reason.DEPENDENCY_WAITING, f"waits for Task {wanted.name!r} {what}", None)
        if state is DependencyState.UNKNOWN:
            message = f"waits for the history database, which alone can tell how Task {wanted.name!r} ended"
            return Hold(Phase.PENDING, Reason.DEPENDENCY_WAITING, message, now + ASK_AGAIN)
    return _backing_off(task, now) or _unserved(task, pools)


def _backing_off(task: Task, now: datetime) -> Hold | None:
    status = task.status
    due = status.next_attempt_time
    if due is None or due <= now:
        return None
    if status.reason in (Reason.BACKING_OFF, Reason.DRAIN):
        return Hold(Phase.PENDING, status.reason, status.message, due)
    # It was held for something else meanwhile, such as a suspension.
    message = f"attempt {status.attempt} is due at {due:%Y-%m-%dT%H:%M:%SZ}"
    return Hold(Phase.PENDING, Reason.BACKING_OFF, message, due)


def _unserved(task: Task, pools: Pools) -> Hold | None:
    missing = no_pool(task, pools)
    return Hold(Phase.PENDING, Reason.NO_WORKER_POOL, missing, None) if missing else None


def _active_deadline(task: Task) -> datetime | None:
    seconds, start = task.spec.active_deadline_seconds, task.status.start_time
    return None if seconds is None or start is None else start + timedelta(seconds=seconds)


def _queue_deadline(task: Task) -> datetime | None:
    seconds, since = task.spec.queue_timeout_seconds, task.status.queued_time
    return None if seconds is None or since is None else since + timedelta(seconds=seconds)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)
