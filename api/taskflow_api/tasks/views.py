"""Response bodies of Tasks, built from live resources or from the history."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from taskflow_core.domain.array import ArrayStatus
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.resource import Condition, Model
from taskflow_core.domain.task import LastError, Progress, StoredOutput, Task
from taskflow_core.store.rows import AttemptRow, TaskRow, TimelineRow

_PAYLOADS = frozenset({"args", "kwargs", "array"})


class TaskSummary(Model):
    """A Task in a list."""

    uid: str
    namespace: str
    name: str
    handler: str
    queue: str
    priority: int
    phase: str
    reason: str
    message: str
    attempt: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deleted_at: datetime | None = None
    """When the resource was deleted before the Task finished. Only in the history."""


class TaskView(TaskSummary):
    """A Task."""

    live: bool
    """True if the resource exists. Otherwise the values are from the history."""
    spec: dict[str, Any]
    result: Any = None
    outputs: list[StoredOutput]
    labels: dict[str, str] | None = None
    worker: str | None = None
    """This field and those below are only set for a live Task."""
    progress: Progress | None = None
    array: ArrayStatus | None = None
    attempts_started: int | None = None
    duplicate_deliveries: int | None = None
    stale_events: int | None = None
    last_error: LastError | None = None
    conditions: list[Condition] | None = None


class AttemptView(Model):
    """An attempt of a Task."""

    attempt: int
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    reason: str | None
    error_type: str | None
    message: str | None
    run_ms: int | None


class TimelineView(Model):
    """An event in the history of a Task."""

    at: datetime
    attempt: int
    kind: str
    worker: str
    reason: str
    message: str


class TaskDetail(TaskView):
    """A Task with its attempts and timeline."""

    history: Literal["available", "unavailable"]
    """`unavailable`: PostgreSQL does not answer, so attempts and timeline are missing."""
    attempts: list[AttemptView] | None
    timeline: list[TimelineView] | None


class TaskPage(Model):
    """A page of Tasks, newest first."""

    items: list[TaskSummary]
    next_cursor: str | None
    """Send it as `cursor` for the next page; null at the end."""


def summary(row: TaskRow) -> TaskSummary:
    """The summary of a row."""
    return TaskSummary.model_validate(_values(row, TaskSummary))


def from_row(row: TaskRow) -> TaskView:
    """The view of a row of the history."""
    return TaskView.model_validate(_values(row, TaskView) | {"live": False})


def from_object(body: dict[str, Any]) -> TaskView:
    """The view of a live resource."""
    task = Task.from_object(body)
    status = task.status
    return TaskView(
        uid=task.uid,
        namespace=task.namespace,
        name=task.name,
        handler=task.spec.handler,
        queue=task.spec.queue,
        priority=task.spec.priority,
        phase=status.phase or Phase.PENDING,
        reason=status.reason,
        message=status.message,
        attempt=status.attempt,
        created_at=task.created,
        started_at=status.start_time,
        finished_at=status.completion_time,
        live=True,
        spec=_shown(task, body["spec"]),
        result=status.result,
        outputs=list(status.outputs),
        labels=body["metadata"].get("labels") or {},
        worker=status.worker,
        progress=status.progress,
        array=status.array,
        attempts_started=status.attempts,
        duplicate_deliveries=status.duplicate_deliveries,
        stale_events=status.stale_events,
        last_error=status.last_error,
        conditions=list(status.conditions),
    )


def _shown(task: Task, spec: dict[str, Any]) -> dict[str, Any]:
    # No serialiser could write it. Such a Task is never run: its message says so.
    return {name: value for name, value in spec.items() if name not in _PAYLOADS} if task.payload_too_deep else spec


def detail(view: TaskView, runs: tuple[list[AttemptRow], list[TimelineRow]] | None) -> TaskDetail:
    """The view with attempts and timeline; `runs` is None if PostgreSQL did not answer."""
    values = {name: getattr(view, name) for name in TaskView.model_fields}
    if runs is None:
        return TaskDetail(**values, history="unavailable", attempts=None, timeline=None)
    attempts, timeline = runs
    return TaskDetail(
        **values,
        history="available",
        attempts=[AttemptView.model_validate(_values(row, AttemptView)) for row in attempts],
        timeline=[TimelineView.model_validate(_values(row, TimelineView)) for row in timeline],
    )


def _values(row: object, model: type[Model]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in model.model_fields if hasattr(row, name)}
