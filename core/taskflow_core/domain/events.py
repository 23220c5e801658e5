"""Events of the streams: the only way by which state leaves a worker.

An entry is flat text: k, uid, att (attempt, or attempt:chunk), tok, w, ts (Redis time, ms) and p, a JSON object whose
shape depends on the kind. `event_input` reads it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.plain_text import PlainText
from taskflow_core.domain.resource import Count, Model, RunMs, Time
from taskflow_core.domain.task import (
    MAX_AGAIN_SECONDS,
    MAX_CHECKPOINT_BYTES,
    MAX_OUTPUTS,
    MAX_TYPE_CHARS,
    Progress,
    StoredOutput,
)


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
    AGAIN = "again"
    """Worker: the handler raised `Again` (Continuation)."""
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
    EventKind.AGAIN: 1_000_000,
    EventKind.LOST: 1_000_000,
    EventKind.SETTLED: 1_000_001,
    EventKind.DELETED: 1_000_002,
    EventKind.DUPLICATE: -1,
    EventKind.STALE: -1,
}
"""Order within an attempt. Whoever keeps state takes an event only if its (attempt, sequence) is greater than what it
has."""

OPERATOR_KINDS = frozenset({EventKind.PENDING, EventKind.QUEUED, EventKind.SETTLED, EventKind.DELETED})
"""The kinds that only the operator may say."""
ENDS = frozenset(
    {
        EventKind.SUCCEEDED,
        EventKind.FAILED,
        EventKind.CANCELLED,
        EventKind.RELEASED,
        EventKind.AGAIN,
        EventKind.LOST,
    }
)
"""The kinds that end an attempt."""


class Origin(StrEnum):
    """Who may write a stream."""

    WORKERS = "workers"
    OPERATOR = "operator"


class Stream(NamedTuple):
    """One of the two streams of a namespace."""

    namespace: str
    origin: Origin


class EntryId(NamedTuple):
    """Names an entry among those of all streams: a stream id alone does not."""

    stream: Stream
    id: str

    def __str__(self) -> str:
        return f"{self.id}@{self.stream.namespace}/{self.stream.origin}"


class Success(Model):
    """Payload of `succeeded`."""

    result: Any = None
    outputs: tuple[StoredOutput, ...] = Field(default=(), max_length=MAX_OUTPUTS)
    run_ms: RunMs = 0


Checkpoint = Annotated[str, Field(max_length=MAX_CHECKPOINT_BYTES)]
"""JSON of at most 4 KiB, given to the next attempt."""


class Advance(Model):
    """Payload of `progress`. None leaves a value as it is."""

    progress: Progress | None = None
    checkpoint: Checkpoint | None = None


class Continuation(Model):
    """Payload of `again`: the handler is to be run once more, later."""

    seconds: int = Field(ge=0, le=MAX_AGAIN_SECONDS)
    """Until the next attempt, counted from the end of this one."""
    checkpoint: Checkpoint | None = None
    """None leaves it as it is."""
    message: PlainText = ""
    """What it waits for, in the handler's words."""
    run_ms: RunMs = 0


MAX_CLASSES = 32
"""Classes of an error that are told; of more, the most specific ones."""
ErrorClasses = Annotated[
    tuple[Annotated[PlainText, Field(max_length=MAX_TYPE_CHARS)], ...], Field(max_length=MAX_CLASSES)
]
"""The classes of an error by their qualified names, most specific first: its method resolution order without `object`.
Empty from a worker of an older version."""


class Failure(Model):
    """Payload of `failed`, `cancelled`, `released` and `lost`."""

    reason: Reason
    type: PlainText = ""
    message: PlainText = ""
    trace: PlainText = ""
    """The last frames of the handler's traceback."""
    classes: ErrorClasses = ()
    """Of the error that the handler raised, for `retryOn` and `noRetryOn`."""
    run_ms: RunMs = 0
    beside: Count = 0
    """How many more attempts were lost with it, of which any may be the cause."""


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
    attempts: int = 0
    """How many were started, as far as is known."""
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
    namespace: str = ""
    """Whose stream it is in, and so whose Task it may be about."""
    kind: EventKind
    uid: str
    attempt: int
    chunk: int | None = None
    """In an array, the first index of the chunk."""
    worker: PlainText = ""
    time_ms: int = 0
    payload: dict[str, Any] = Field(default_factory=dict)

    @property
    def entry(self) -> EntryId:
        """Its place among all streams."""
        origin = Origin.OPERATOR if self.kind in OPERATOR_KINDS else Origin.WORKERS
        return EntryId(Stream(self.namespace, origin), self.id)

    @property
    def sequence(self) -> int:
        """Order of the event within its attempt."""
        return SEQUENCE[self.kind]

    @property
    def order(self) -> tuple[int, int]:
        """(attempt, sequence): the guard of every monotonic write."""
        return self.attempt, self.sequence
