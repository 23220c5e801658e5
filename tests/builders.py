"""Values of the domain with everything filled in but what a test is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from taskflow_core.domain import naming
from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task, TaskSpec, TaskStatus

UID = "3f1c2a7e-8d55-4a0b-9a41-5a1b2c3d4e5f"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
TOKEN_KEY = "0123456789abcdef0123456789abcdef"


def make_task(
    *,
    uid: str = UID,
    name: str = "report",
    namespace: str = "team-a",
    phase: Phase | None = None,
    attempt: int = 1,
    generation: int = 1,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Task:
    """A Task; `status` are further status fields, every other keyword is a field of the spec."""
    return Task(
        uid=uid,
        namespace=namespace,
        name=name,
        generation=generation,
        created=NOW,
        spec=TaskSpec.model_validate({"handler": "reports.summarise", **spec}),
        status=TaskStatus.model_validate({"phase": phase, "attempt": attempt, **(status or {})}),
    )


def make_object(task: Task) -> dict[str, Any]:
    """The Task as the API server shows it."""
    body: dict[str, Any] = {
        "apiVersion": naming.API_VERSION,
        "kind": "Task",
        "metadata": {
            "uid": task.uid,
            "namespace": task.namespace,
            "name": task.name,
            "generation": task.generation,
            "resourceVersion": "7",
            "creationTimestamp": task.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "spec": task.spec.model_dump(mode="json", by_alias=True),
    }
    if task.status.phase is not None:
        body["status"] = task.status.to_object()
    return body


def make_event(
    kind: EventKind,
    *,
    uid: str = UID,
    attempt: int = 1,
    namespace: str = "team-a",
    worker: str = "pod-1:ab12",
    time_ms: int = NOW_MS,
    id: str = "1-1",  # noqa: A002 - the field's name
    **payload: Any,
) -> Event:
    """An event as it is read; further keywords are its payload."""
    return Event(
        id=id,
        namespace=namespace,
        kind=kind,
        uid=uid,
        attempt=attempt,
        worker=worker,
        time_ms=time_ms,
        payload=payload,
    )


def make_message(*, uid: str = UID, attempt: int = 1, handler: str = "reports.summarise", **fields: Any) -> Message:
    """A message with the token that belongs to its attempt."""
    values: dict[str, Any] = {
        "uid": uid,
        "namespace": "team-a",
        "name": "report",
        "attempt": attempt,
        "token": naming.attempt_token(TOKEN_KEY, "team-a", uid, attempt),
        "handler": handler,
        "queue": "default",
    }
    return Message.model_validate(values | fields)
