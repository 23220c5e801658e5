"""The status of a Task that enters a phase, with the conditions that tell of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from taskflow_core.domain import conditions as c
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.resource import Condition
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, Task, TaskStatus


def finished(task: Task, condition: str, phase: Phase, reason: Reason, message: str, now: datetime) -> TaskStatus:
    """It ended. A failure because of a cancel is a cancellation."""
    if condition == c.FAILED and reason is Reason.CANCELLED:
        phase, condition = Phase.CANCELLED, c.CANCELLED
    changes = [
        (c.ACCEPTED, True, Reason.VALID, ""),
        (condition, True, reason, message),
        (c.FINISHED, True, reason, message),
    ]
    status = in_phase(task, phase, reason, message, changes, now)
    closed = status.conditions
    for kind in (c.QUEUED, c.RUNNING):
        closed = close(closed, kind, reason, task.generation, now)
    start = task.status.start_time
    return status.model_copy(
        update={
            "conditions": closed,
            "completion_time": now,
            "next_attempt_time": None,
            "queued_time": None,
            "unknown_handler_time": None,
            "duration": duration(now - start) if start else None,
        }
    )


def in_phase(
    task: Task,
    phase: Phase,
    reason: str,
    message: str,
    changes: Sequence[tuple[str, bool, str, str]],
    now: datetime,
) -> TaskStatus:
    """It is in a phase.

    Args:
        task: as it was.
        phase: the new one.
        reason: why, in one word.
        message: why, for people.
        changes: type, status, reason and message of the conditions that change.
        now: the time.
    """
    conditions = task.status.conditions
    for kind, holds, why, text in changes:
        conditions = c.set_condition(
            conditions, kind, status=holds, reason=why, message=text, generation=task.generation, now=now
        )
    return task.status.model_copy(
        update={
            "observed_generation": task.generation,
            "phase": phase,
            "reason": str(reason),
            "message": message[:MAX_MESSAGE_CHARS],
            "conditions": conditions,
        }
    )


def close(
    conditions: tuple[Condition, ...], kind: str, reason: Reason, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Set a condition false, if the Task ever had it."""
    if not any(condition.type == kind for condition in conditions):
        return conditions
    return c.set_condition(conditions, kind, status=False, reason=reason, message="", generation=generation, now=now)


def duration(span: timedelta) -> str:
    """A span for printing."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 10:  # noqa: PLR2004 - below that, tenths are worth reading
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"
