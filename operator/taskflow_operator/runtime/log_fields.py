"""Fields of log lines."""

from __future__ import annotations

from taskflow_core.domain.task import Task
from taskflow_core.telemetry.logs import trace_id


def log_fields(task: Task) -> dict[str, str | int | None]:
    """Fields of every log line about a Task: its identity, current attempt and trace."""
    return {
        "task": f"{task.namespace}/{task.name}",
        "uid": task.uid,
        "attempt": task.status.attempt,
        "trace_id": trace_id(task.traceparent),
    }
