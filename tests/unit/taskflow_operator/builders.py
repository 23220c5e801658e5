from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task, TaskSpec, TaskStatus

CREATED = datetime(2030, 1, 1, tzinfo=UTC)
CREATED_MS = int(CREATED.timestamp() * 1000)


def make_task(uid: str = "u1", *, status: TaskStatus | None = None, **spec: Any) -> Task:
    return Task(
        uid=uid,
        namespace="team",
        name=f"task-{uid}",
        created=CREATED,
        spec=TaskSpec.model_validate({"handler": "h", **spec}),
        status=status or TaskStatus(),
    )


def failed_task(uid: str = "u1", message: str = "it broke") -> Task:
    return make_task(uid, status=TaskStatus(phase=Phase.FAILED, reason=Reason.HANDLER_ERROR, message=message))


def make_event(kind: EventKind, after_ms: int, *, attempt: int = 1, uid: str = "u1", **payload: Any) -> Event:
    return Event(
        id=f"{after_ms}-0",
        kind=kind,
        uid=uid,
        attempt=attempt,
        worker="w",
        time_ms=CREATED_MS + after_ms,
        payload=payload,
    )
