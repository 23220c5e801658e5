"""Events of the stream: the only way by which state leaves a worker.

An entry is flat text: k, uid, att (attempt, or attempt:chunk), tok, w, ts (Redis time, ms) and p, a JSON object whose
shape depends on the kind.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from pydantic import Field

from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.plain_text import PlainText
from taskflow_core.domain.resource import Model, Time
from taskflow_core.domain.task import Progress, StoredOutput


class EventKind(StrEnum):
    """What happened."""

    PENDING = "pending"
    """Operator: seen, not queued (TaskSnapshot)."""
    QUEUED = "queued"
    """Operator: entered in the ledger (TaskSnapshot)."""
    STARTED = "started"
    """Worker: claim granted."""
    PROGRESS = "progress"
    """Worker: progress, or a checkpoint for the next attempt (Advance)."""
    SUCCEEDED = "succeeded"
    """Worker: succeeded (Success)."""
    FAILED = "failed"
    """Worker: failed (Failure)."""
    CANCELLED = "cancelled"
    """Worker: stopped on request (Failure)."""
    RELEASED = "released"
    """Worker: handed back by a worker that stops (Failure)."""
    LOST = "lost"
    """Its lease ran out, or its process died (Failure)."""
    SETTLED = "settled"
    """Operator: what the end of an attempt meant for the Task (TaskSnapshot)."""
    DELETED = "deleted"
    """Operator: the resource was deleted before it finished (TaskSnapshot)."""
    DUPLICATE = "duplicate"
    """Worker: a second delivery, refused."""
    STALE = "stale"
    """Worker: a finish by someone who no longer held the attempt, refused."""


SEQUENCE = {
    EventKind.PENDING: 0,
    EventKind.QUEUED: 1,
    EventKind.STARTED: 2,
    EventKind.PROGRESS: 3,
    EventKind.SUCCEEDED: 1_000_000,
    EventKind.CANCELLED: 1_000_000,
    EventKind.FAILED: 1_000_000,
    EventKind.RELEASED: 1_000_000,
    EventKind.LOST: 1_000_000,
    EventKind.SETTLED: 1_000_001,
    EventKind.DELETED: 1_000_002,
    EventKind.DUPLICATE: -1,
    EventKind.STALE: -1,
}
"""Order within an attempt. Whoever keeps state takes an event only if its (attempt, sequence) is greater than what it
has."""

ENDS = frozenset({EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELLED, EventKind.RELEASED, EventKind.LOST})
"""The kinds that end an attempt."""


class Success(Model):
    """Payload of `succeeded`."""

    result: Any = None
    outputs: tuple[StoredOutput, ...] = ()
    run_ms: int = 0


class Advance(Model):
    """Payload of `progress`. None leaves a value as it is."""

    progress: Progress | None = None
    checkpoint: str | None = None
    """JSON of at most 4 KiB, given to the next attempt."""


class Failure(Model):
    """Payload of `failed`, `cancelled`, `released` and `lost`."""

    reason: Reason
    type: PlainText = ""
    message: PlainText = ""
    trace: PlainText = ""
    """The last frames of the handler's traceback."""
    run_ms: int = 0


class TaskSnapshot(Model):
    """Payload of the operator's own events: the Task as the history shows it."""

    namespace: str
    name: str
    created: Time
    spec: dict[str, Any]
    """The Task's specification as on the wire (camelCase)."""
    phase: Phase
    reason: str = ""
    message: str = ""
    attempt: int = 1
    start_time: Time | None = None
    completion_time: Time | None = None
    result: Any = None
    outputs: tuple[StoredOutput, ...] = ()
    labels: dict[str, str] | None = None
    """None from an operator of an older version."""


class Event(Model):
    """One entry of the stream."""

    id: str = ""
    """Stream id; empty before it was added."""
    kind: EventKind
    uid: str
    attempt: int
    chunk: int | None = None
    """In an array, the first index of the chunk."""
    token: str = ""
    worker: PlainText = ""
    time_ms: int = 0
    payload: dict[str, Any] = Field(default_factory=dict)

    @property
    def sequence(self) -> int:
        """Order of the event within its attempt."""
        return SEQUENCE[self.kind]

    @property
    def order(self) -> tuple[int, int]:
        """(attempt, sequence): the guard of every monotonic write."""
        return self.attempt, self.sequence

    @classmethod
    def from_fields(cls, stream_id: str, fields: dict[str, str]) -> Event:
        """Read a stream entry.

        Raises:
            ValueError: the entry is not an event (pydantic's errors are ValueErrors).
        """
        try:
            attempt, chunk = naming.split_place(fields["att"])
            return cls(
                id=stream_id,
                kind=EventKind(fields["k"]),
                uid=fields["uid"],
                attempt=attempt,
                chunk=chunk,
                token=fields.get("tok", ""),
                worker=fields.get("w", ""),
                time_ms=int(fields.get("ts", "0")),
                payload=json.loads(fields.get("p") or "{}"),
            )
        except KeyError as missing:
            raise ValueError(f"stream entry {stream_id} has no field {missing}") from missing
        except RecursionError as error:
            raise ValueError(f"stream entry {stream_id} is nested too deeply") from error
