"""Rows of the history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A Task as the history has it; columns of table `tasks`."""

    uid: str
    namespace: str
    name: str
    handler: str
    queue: str
    priority: int
    spec: dict[str, Any]
    """The specification as on the wire (camelCase)."""
    phase: str
    reason: str
    message: str
    attempt: int
    """The attempt that the latest news was about; while a retry waits, the one that ended."""
    seq: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deleted_at: datetime | None
    """When the resource was deleted before it had finished."""
    result: Any
    outputs: list[dict[str, Any]]
    """Stored outputs as on the wire (camelCase)."""
    labels: dict[str, str] | None
    """As they were when the Task's latest event was written; None from an operator that did not tell them yet."""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt: its start, its end, or both."""

    uid: str
    attempt: int
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    """Kind of the event that ended it: succeeded, failed, again, cancelled, released or lost."""
    reason: str | None
    error_type: str | None
    message: str | None
    run_ms: int | None


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One event of the stream."""

    event_id: str
    uid: str
    attempt: int
    kind: str
    at: datetime
    worker: str
    reason: str
    message: str
