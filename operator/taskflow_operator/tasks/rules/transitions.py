"""The next status of a Task, from the Task, an event and a time. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from taskflow_core.domain import conditions as c
from taskflow_core.domain.events import Advance, Continuation, Event, EventKind, Failure, Success
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.retries import GiveUp, after_failure
from taskflow_core.domain.run_once import PastRun
from taskflow_core.domain.task import (
    MAX_CONTINUATIONS,
    MAX_LOST_WORKERS,
    MAX_MESSAGE_CHARS,
    MAX_TRACE_CHARS,
    MAX_TYPE_CHARS,
    LastError,
    Task,
    TaskStatus,
)
from taskflow_operator.tasks.rules.decision import overdue
from taskflow_operator.tasks.rules.phase_changes import close, duration, finished, in_phase
from taskflow_operator.tasks.rules.unknown_handler import PutBack

_REFUSALS = frozenset({Reason.INVALID_SPEC, Reason.PAYLOAD_TOO_LARGE, Reason.PAYLOAD_TOO_DEEP, Reason.DEPENDENCY_CYCLE})
"""Ends of a Task whose specification is wrong: it was never accepted."""
_LAST_MS = 253_402_300_799_000
"""The end of the year 9999."""


def event_time(event: Event) -> datetime:
    """When it happened, by Redis' clock."""
    # A time beyond the calendar is a broken entry, but a status needs some time.
    return datetime.fromtimestamp(min(max(event.time_ms, 0), _LAST_MS) / 1000, UTC)


def waiting(task: Task, phase: Phase, reason: str, message: str, now: datetime) -> TaskStatus:
    """Valid, but not in its queue: Pending or Suspended."""
    changes = [(c.ACCEPTED, True, Reason.VALID, ""), (c.QUEUED, False, reason, message)]
    return in_phase(task, phase, reason, message, changes, now).model_copy(update={"queued_time": None})


def queued(task: Task, reason: Reason, message: str, now: datetime) -> TaskStatus:
    """In its queue."""
    changes = [(c.ACCEPTED, True, Reason.VALID, ""), (c.QUEUED, True, reason, message)]
    # In whole seconds where no timeout counts from it: then the statuses of many Tasks are equal, and kept once.
    exact = task.spec.queue_timeout_seconds is not None
    since = task.status.queued_time or (now if exact else now.replace(microsecond=0))
    status = in_phase(task, Phase.QUEUED, reason, message, changes, now)
    return status.model_copy(update={"next_attempt_time": None, "queued_time": since})


def running(task: Task, worker: str | None, now: datetime) -> TaskStatus:
    """A worker claimed the attempt."""
    message = "items run" if task.spec.array else f"attempt {task.status.attempt} runs"
    message += f" on {worker}" if worker else ""
    changes = [
        (c.ACCEPTED, True, Reason.VALID, ""),
        (c.QUEUED, False, Reason.STARTED, ""),
        (c.RUNNING, True, Reason.STARTED, message),
    ]
    status = in_phase(task, Phase.RUNNING, Reason.STARTED, message, changes, now)
    return status.model_copy(
        update={
            "worker": worker,
            "start_time": task.status.start_time or now,
            "next_attempt_time": None,
            "queued_time": None,
            # An attempt may be reported twice, as claimed and as started.
            "attempts": max(task.status.attempts, task.status.attempt),
        }
    )


def observed(task: Task) -> TaskStatus:
    """The same status for the current generation. Clients wait until `observedGeneration` matches."""
    if task.status.observed_generation == task.generation:
        return task.status
    conditions = tuple(
        each.model_copy(update={"observed_generation": task.generation}) for each in task.status.conditions
    )
    return task.status.model_copy(update={"observed_generation": task.generation, "conditions": conditions})


def advanced(task: Task, advance: Advance) -> TaskStatus:
    """The handler reported progress, or a checkpoint for the next attempt."""
    reported = {"progress": advance.progress, "checkpoint": advance.checkpoint}
    return task.status.model_copy(update={name: value for name, value in reported.items() if value is not None})


def completed(task: Task, message: str, now: datetime) -> TaskStatus:
    """An array succeeded."""
    return finished(task, c.COMPLETE, Phase.SUCCEEDED, Reason.SUCCEEDED, message, now)


def stopped(task: Task, phase: Phase, reason: Reason, message: str, now: datetime) -> TaskStatus:
    """Ended without another attempt: refused, cancelled, or out of time."""
    status = finished(task, c.CANCELLED if phase is Phase.CANCELLED else c.FAILED, phase, reason, message, now)
    if reason not in _REFUSALS:
        return status
    conditions = c.set_condition(
        status.conditions, c.ACCEPTED, status=False, reason=reason, message=message, generation=task.generation, now=now
    )
    return status.model_copy(update={"conditions": conditions})


def not_run(task: Task, ran: PastRun, message: str, now: datetime) -> TaskStatus:
    """It ends as the run before it did, which has the result and the outputs."""
    succeeded = ran.phase is Phase.SUCCEEDED
    condition, phase = (c.COMPLETE, Phase.SUCCEEDED) if succeeded else (c.FAILED, Phase.FAILED)
    status = finished(task, condition, phase, Reason.ALREADY_RAN, message, now)
    return status.model_copy(update={"result": ran.result, "outputs": ran.outputs}) if succeeded else status


def ended(
    task: Task,
    event: Event,
    draw: float,
    back: PutBack | None = None,
    *,
    max_lost_workers: int = MAX_LOST_WORKERS,
) -> TaskStatus:
    """The end of the current attempt: success, another attempt, failure or cancellation.

    Args:
        task: as it was.
        event: the end.
        draw: a random number of [0, 1), for the jitter.
        back: set if the worker does not know the handler, and others may.
        max_lost_workers: the Task ends when so many different workers in a row died of it.

    Raises:
        ValueError: the event's payload does not fit its kind (pydantic's errors are ValueErrors).
    """
    if event.kind is EventKind.SUCCEEDED:
        return _succeeded(task, event, Success.model_validate(event.payload))
    if event.kind is EventKind.AGAIN:
        return _continued(task, event, Continuation.model_validate(event.payload))
    failure = Failure.model_validate(event.payload)
    worker, now = event.worker or None, event_time(event)
    return failed(task, failure, worker, now, draw, back, max_lost_workers=max_lost_workers)


def failed(
    task: Task,
    failure: Failure,
    worker: str | None,
    now: datetime,
    draw: float,
    back: PutBack | None = None,
    *,
    max_lost_workers: int = MAX_LOST_WORKERS,
) -> TaskStatus:
    """The current attempt failed: another one follows, or the Task ends.

    Args:
        task: as it was.
        failure: how the attempt ended.
        worker: that ran it, if known.
        now: when it failed.
        draw: a random number of [0, 1), for the jitter.
        back: see `ended`.
        max_lost_workers: likewise.
    """
    attempt = task.status.attempt
    spared = _spared(task, failure)
    lost = task.status.lost_workers if spared else _lost_workers(task, failure.reason, worker)
    known = {
        "lost_workers": lost,
        "last_error": _last_error(attempt, failure),
        "worker": worker or task.status.worker,
        "attempts": max(task.status.attempts, attempt),
        "unknown_handler_time": back.since if back is not None else None,
    }
    if (status := _overdue(task, now)) is not None:
        return status.model_copy(update=known)
    summary = f"attempt {attempt}: {failure.type + ': ' if failure.type else ''}{failure.message}"
    if back is not None:
        status = put_back(task, back, now)
        return _next_attempt(task, status, failure.reason, back.due, now, counts=False).model_copy(update=known)
    if len(lost) >= max_lost_workers:
        message = f"{len(lost)} workers in a row died while they ran it: {', '.join(lost)}; {summary}"
        return finished(task, c.FAILED, Phase.FAILED, Reason.POISON_TASK, message, now).model_copy(update=known)
    counted = attempt - task.status.handbacks
    decision = after_failure(task.spec.retry_policy, counted=counted, failure=failure, draw=draw, spared=spared)
    if isinstance(decision, GiveUp):
        if failure.reason is Reason.UNKNOWN_HANDLER and (since := task.status.unknown_handler_time) is not None:
            summary = f"no worker had the handler from {since:%H:%M:%S} to {now:%H:%M:%S} UTC; {summary}"
        status = finished(task, c.FAILED, Phase.FAILED, failure.reason, summary, now)
        return status.model_copy(update=known)
    message = f"{summary}; attempt {attempt + 1} follows" + (
        f" in {decision.delay_seconds} s" if decision.delay_seconds else ""
    )
    reason = Reason.DRAIN if failure.reason is Reason.DRAIN else Reason.BACKING_OFF
    status = waiting(task, Phase.PENDING, reason, message, now)
    due = now + timedelta(seconds=decision.delay_seconds)
    return _next_attempt(task, status, failure.reason, due, now, counts=decision.counts).model_copy(update=known)


def _overdue(task: Task, now: datetime) -> TaskStatus | None:
    """The end of the Task when its time was up as its attempt ended, or when the user had cancelled it."""
    # A worker took it, even if its start was not seen: its time in the queue is over.
    taken = task.model_copy(update={"status": task.status.model_copy(update={"queued_time": None})})
    end = overdue(taken, now)
    return None if end is None else stopped(task, end.phase, end.reason, end.message, now)


def _continued(task: Task, event: Event, asked: Continuation) -> TaskStatus:
    """The handler raised `Again`: another attempt follows when it asked for, and this one does not count."""
    attempt, now = task.status.attempt, event_time(event)
    known: dict[str, Any] = {
        "lost_workers": (),
        "worker": event.worker or task.status.worker,
        "attempts": max(task.status.attempts, attempt),
        "unknown_handler_time": None,
        "checkpoint": task.status.checkpoint if asked.checkpoint is None else asked.checkpoint,
    }
    summary = f"attempt {attempt} asked to be run again" + (f": {asked.message}" if asked.message else "")
    status = _overdue(task, now)
    if status is None and task.status.continuations >= MAX_CONTINUATIONS:
        message = f"the handler raised Again more than {MAX_CONTINUATIONS:,} times; {summary}"
        status = finished(task, c.FAILED, Phase.FAILED, Reason.TOO_MANY_CONTINUATIONS, message, now)
    if status is None:
        due = now + timedelta(seconds=asked.seconds)
        message = f"{summary}; attempt {attempt + 1} follows" + (f" in {asked.seconds} s" if asked.seconds else "")
        status = waiting(task, Phase.PENDING, Reason.AGAIN, message, now)
        status = _next_attempt(task, status, Reason.AGAIN, due, now, counts=False)
        known |= {"continuations": task.status.continuations + 1, "progress": task.status.progress}
    return status.model_copy(update=known)


def _last_error(attempt: int, failure: Failure) -> LastError:
    return LastError(
        attempt=attempt,
        reason=failure.reason,
        type=failure.type[:MAX_TYPE_CHARS],
        message=failure.message[:MAX_MESSAGE_CHARS],
        trace=failure.trace[:MAX_TRACE_CHARS],
    )


def _lost_workers(task: Task, reason: Reason, worker: str | None) -> tuple[str, ...]:
    """The different workers that died in a row, after an attempt that ended for this reason.

    A worker that lost one process of several lives on, and counts once. A container that starts again is another
    worker. In a pod of its own, an attempt takes no worker from others.
    """
    lost = task.status.lost_workers
    if task.isolated:
        return ()
    if reason.worker_died:
        return (*lost, worker) if worker and worker not in lost else lost
    # These say nothing about what the attempt does to its worker.
    return lost if reason in (Reason.DRAIN, Reason.UNKNOWN_HANDLER, Reason.BROKER_DATA_LOST) else ()


def history_away(task: Task, now: datetime) -> TaskStatus:
    """An array waits for the history."""
    reason = Reason.HISTORY_UNAVAILABLE
    message = "waits for the history database, which has what has ended of the array"
    if task.status.phase is Phase.RUNNING:
        return in_phase(task, Phase.RUNNING, reason, message, [(c.RUNNING, True, reason, message)], now)
    return waiting(task, Phase.PENDING, reason, message, now)


def put_back(task: Task, back: PutBack, now: datetime) -> TaskStatus:
    """Waits for a worker that knows the handler."""
    status = waiting(task, Phase.PENDING, Reason.UNKNOWN_HANDLER, back.message, now)
    conditions = close(status.conditions, c.RUNNING, Reason.UNKNOWN_HANDLER, task.generation, now)
    return status.model_copy(update={"conditions": conditions, "unknown_handler_time": back.since})


def _next_attempt(
    task: Task, status: TaskStatus, why: Reason, due: datetime, now: datetime, *, counts: bool
) -> TaskStatus:
    """The status with the next attempt as the current one.

    Args:
        task: as it was.
        status: what it waits for.
        why: its last attempt ended.
        due: when the next one may start.
        now: the time.
        counts: whether the last one counts against `maxAttempts`.
    """
    return status.model_copy(
        update={
            "conditions": close(status.conditions, c.RUNNING, why, task.generation, now),
            "attempt": task.status.attempt + 1,
            "handbacks": task.status.handbacks + (not counts),
            "next_attempt_time": due,
            "progress": None,
        }
    )


def _spared(task: Task, failure: Failure) -> bool:
    """Whether the attempt does not count, since one beside it may have used up the memory of their container. A Task to
    which that happens twice in a row is more likely the cause.
    """
    last = task.status.last_error
    beside = failure.reason is Reason.OUT_OF_MEMORY and failure.beside > 0
    return beside and (last is None or last.reason != failure.reason)


def bare(status: TaskStatus) -> TaskStatus:
    """The same status without anything that came from a handler or worker."""
    message = "the API server refused the status as it was; the operator's log says why"
    return status.model_copy(
        update={
            "message": message,
            "worker": None,
            "lost_workers": (),
            "result": None,
            "outputs": (),
            "last_error": None,
            "conditions": tuple(each.model_copy(update={"message": ""}) for each in status.conditions),
        }
    )


def _succeeded(task: Task, event: Event, success: Success) -> TaskStatus:
    now = event_time(event)
    status = finished(task, c.COMPLETE, Phase.SUCCEEDED, Reason.SUCCEEDED, "", now)
    # Without a started event, the start is computed from the run time that the worker measured, if that can be.
    ran = min(timedelta(milliseconds=success.run_ms), max(now - task.created, timedelta()))
    start = task.status.start_time or now - ran
    return status.model_copy(
        update={
            "worker": event.worker or None,
            "result": success.result,
            "outputs": success.outputs,
            "start_time": start,
            "attempts": max(task.status.attempts, task.status.attempt),
            "checkpoint": None,
            "lost_workers": (),
            "duration": duration(now - start),
        }
    )
