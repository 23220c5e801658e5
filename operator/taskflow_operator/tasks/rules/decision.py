"""What to do with a Task now: one pure decision over its specification, its status, and facts from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.run_once import PastRun
from taskflow_core.domain.task import DependencyOutcome, Task
from taskflow_operator.tasks.rules.unknown_handler import Rollout
from taskflow_operator.tasks.rules.validation import invalid

ASK_AGAIN = timedelta(seconds=5)
"""When to ask again how a dependency ended, while the history is unavailable."""


class Pools(Protocol):
    """Which queues are served."""

    def queues(self, namespace: str) -> frozenset[str]:
        """Queues that some WorkerPool of the namespace serves."""

    def blocked(self, namespace: str, queue: str) -> str | None:
        """Why none of the pools that serve the queue takes anything now; None if one does."""

    def rollout(self, namespace: str, queue: str) -> Rollout | None:
        """The rollout of a pool that serves the queue: one that is going, or else the latest; None if none was seen."""


class DependencyState(StrEnum):
    """State of a Task that another Task depends on."""

    MISSING = "missing"
    OPEN = "open"
    SUCCEEDED = "succeeded"
    ENDED_BADLY = "ended badly"
    UNKNOWN = "unknown"
    """It was deleted or never existed. The history knows, and is unavailable."""


class Unanswered(StrEnum):
    """Why it is not known whether a Task ran before."""

    UNAVAILABLE = "waits for the history database, which alone can tell whether it ran before"
    NOT_YET = "waits until the history database has the end of the Task that had its name before"


@dataclass(frozen=True)
class Facts:
    """What a decision needs to know besides the Task. A new check adds a field here and a gate to `GATES`."""

    pools: Pools
    dependencies: Sequence[DependencyState] = ()
    """States of `spec.dependsOn`, in its order."""
    cycle: Sequence[str] = ()
    """Names of the Tasks of a dependency cycle that the Task is part of, itself first and last; else empty."""
    ran: PastRun | Unanswered | None = None
    """The run because of which it does not run again, or why nobody knows; None if it may run."""


@dataclass(frozen=True)
class Enqueue:
    """Put its current attempt into its queue."""


@dataclass(frozen=True)
class Keep:
    """Leave it as it is."""

    until: datetime | None
    """When to look again; None if only a change can matter."""


@dataclass(frozen=True)
class Hold:
    """It does not belong in its queue at the moment."""

    phase: Phase
    reason: str
    message: str
    until: datetime | None
    """When to look again; None if only a change can matter."""


@dataclass(frozen=True)
class End:
    """End it: take it out of the queue, or ask the worker to stop."""

    phase: Phase
    reason: Reason
    message: str
    ran: PastRun | None = None
    """The run whose result and outputs are those of this Task, too."""


Decision = Enqueue | Keep | Hold | End
Gate = Callable[[Task, Facts, datetime], Hold | End | None]
"""An admission check: why the Task may not be queued now, or None."""


def decide(task: Task, facts: Facts, now: datetime) -> Decision:
    """What to do with an open Task.

    Args:
        task: not finished.
        facts: what else the decision depends on.
        now: the time.
    """
    if (end := overdue(task, now)) is not None:
        return end
    # Suspension does not stop a running attempt. A running array hands out no further chunks.
    if task.status.phase is Phase.RUNNING and not (task.spec.array and task.spec.suspend):
        return Keep(_active_deadline(task))
    for gate in GATES:
        if (answer := gate(task, facts, now)) is not None:
            return answer
    if task.status.phase is Phase.QUEUED:
        return Keep(_earliest(_queue_deadline(task), _active_deadline(task)))
    return Enqueue()


def overdue(task: Task, now: datetime) -> End | None:
    """Whether the Task has to end because the user cancelled or deleted it, or its time is up."""
    spec = task.spec
    if task.cancelled:
        message = "cancelled by spec.cancel" if spec.cancel else "cancelled, because the Task is being deleted"
        return End(Phase.CANCELLED, Reason.CANCELLED, message)
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
    """Why no pool serves the Task; None if one does."""
    served = pools.queues(task.namespace)
    if task.spec.queue in served:
        return None
    others = "queues served there: " + ", ".join(sorted(served)) if served else "there is no WorkerPool"
    return f"no WorkerPool in namespace {task.namespace!r} serves queue {task.spec.queue!r}; {others}"


def _valid(task: Task, _facts: Facts, _now: datetime) -> End | None:
    problem = invalid(task)
    return None if problem is None else End(Phase.FAILED, *problem)


def _not_run_before(task: Task, facts: Facts, now: datetime) -> Hold | End | None:
    ran, rerun = facts.ran, task.spec.rerun
    if ran is None:
        return None
    if isinstance(ran, Unanswered):
        return Hold(Phase.PENDING, Reason.HISTORY_UNAVAILABLE, f"{ran.value} (rerun: {rerun})", now + ASK_AGAIN)
    succeeded = ran.phase is Phase.SUCCEEDED
    how = "" if succeeded else f", and ended as {ran.phase}"
    message = f"ran as {ran.uid} until {ran.finished_at:%Y-%m-%dT%H:%M:%SZ}{how} (rerun: {rerun})"
    return End(Phase.SUCCEEDED if succeeded else Phase.FAILED, Reason.ALREADY_RAN, message, ran)


def _acyclic(_task: Task, facts: Facts, _now: datetime) -> End | None:
    if not facts.cycle:
        return None
    return End(Phase.FAILED, Reason.DEPENDENCY_CYCLE, "dependsOn is a cycle: " + " -> ".join(facts.cycle))


def _no_failed_dependency(task: Task, facts: Facts, _now: datetime) -> End | None:
    for wanted, state in zip(task.spec.depends_on, facts.dependencies, strict=True):
        if wanted.outcome is DependencyOutcome.SUCCEEDED and state is DependencyState.ENDED_BADLY:
            return End(Phase.FAILED, Reason.DEPENDENCY_FAILED, f"Task {wanted.name!r} of dependsOn did not succeed")
    return None


def _not_suspended(task: Task, _facts: Facts, _now: datetime) -> Hold | None:
    return Hold(Phase.SUSPENDED, Reason.SUSPENDED, "suspended by spec.suspend", None) if task.spec.suspend else None


def _start_time_reached(task: Task, _facts: Facts, now: datetime) -> Hold | None:
    start = task.spec.not_before
    if task.status.phase is Phase.QUEUED or start is None or start <= now:
        return None
    return Hold(Phase.PENDING, Reason.NOT_BEFORE, f"waits for {start:%Y-%m-%dT%H:%M:%SZ}", start)


def _dependencies_finished(task: Task, facts: Facts, now: datetime) -> Hold | None:
    if task.status.phase is Phase.QUEUED:
        return None
    for wanted, state in zip(task.spec.depends_on, facts.dependencies, strict=True):
        if state in (DependencyState.OPEN, DependencyState.MISSING):
            event = "to finish" if state is DependencyState.OPEN else "to be created"
            return Hold(Phase.PENDING, Reason.DEPENDENCY_WAITING, f"waits for Task {wanted.name!r} {event}", None)
        if state is DependencyState.UNKNOWN:
            message = f"waits for the history database, which alone can tell how Task {wanted.name!r} ended"
            return Hold(Phase.PENDING, Reason.DEPENDENCY_WAITING, message, now + ASK_AGAIN)
    return None


def _backoff_over(task: Task, _facts: Facts, now: datetime) -> Hold | None:
    status = task.status
    due = status.next_attempt_time
    if status.phase is Phase.QUEUED or due is None or due <= now:
        return None
    # A handler may ask for a longer wait than the Task's deadline leaves.
    until = _earliest(due, _active_deadline(task))
    if status.reason in (Reason.BACKING_OFF, Reason.DRAIN, Reason.AGAIN, Reason.UNKNOWN_HANDLER):
        return Hold(Phase.PENDING, status.reason, status.message, until)
    # Something else held it meanwhile, such as a suspension.
    message = f"attempt {status.attempt} is due at {due:%Y-%m-%dT%H:%M:%SZ}"
    return Hold(Phase.PENDING, status.delay_reason, message, until)


def _served(task: Task, facts: Facts, _now: datetime) -> Hold | None:
    # The status of a queued Task says that its pool is gone, but the Task stays queued for the next pool.
    missing = None if task.status.phase is Phase.QUEUED else no_pool(task, facts.pools)
    return Hold(Phase.PENDING, Reason.NO_WORKER_POOL, missing, None) if missing else None


GATES: tuple[Gate, ...] = (
    _valid,
    _not_run_before,
    _acyclic,
    _no_failed_dependency,
    _not_suspended,
    _start_time_reached,
    _dependencies_finished,
    _backoff_over,
    _served,
)
"""Admission checks, in order: the first that answers decides. A Task that passes all of them is queued."""


def _active_deadline(task: Task) -> datetime | None:
    seconds, start = task.spec.active_deadline_seconds, task.status.start_time
    return None if seconds is None or start is None else start + timedelta(seconds=seconds)


def _queue_deadline(task: Task) -> datetime | None:
    seconds, since = task.spec.queue_timeout_seconds, task.status.queued_time
    return None if seconds is None or since is None else since + timedelta(seconds=seconds)


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)
