"""What the history is told about a Task."""

from __future__ import annotations

from taskflow_core.domain.attempts import Attempt
from taskflow_core.domain.events import TaskSnapshot
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task


def snapshot(task: Task) -> TaskSnapshot:
    """The Task as the history shows it."""
    status = task.status
    return TaskSnapshot(
        namespace=task.namespace,
        name=task.name,
        created=task.created,
        spec=task.spec.model_dump(mode="json", by_alias=True),
        phase=status.phase or Phase.PENDING,
        reason=status.reason,
        message=status.message,
        attempt=status.attempt,
        attempts=status.attempts,
        start_time=status.start_time,
        completion_time=status.completion_time,
        result=status.result,
        outputs=status.outputs,
        labels=task.labels,
    )


def current_attempt(task: Task) -> Attempt:
    """The Task's current attempt."""
    return Attempt(task.uid, task.status.attempt, snapshot(task))
