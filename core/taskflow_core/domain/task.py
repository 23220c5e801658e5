"""The Task resource, field for field as the CRD has it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field

from taskflow_core.domain.naming import ANNOTATION_TRACEPARENT, GROUP
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.plain_text import PlainText
from taskflow_core.domain.resource import Condition, Count, Model, Time, readable_fields
from taskflow_core.domain.scheduled_run import ScheduledRun, scheduled_run

MAX_PAYLOAD_BYTES = 8 * 1024
MAX_RESULT_BYTES = 4 * 1024
MAX_JSON_LEVELS = 50
"""Nesting of payloads and results; beyond some hundreds, JSON parsers give up."""
MAX_LABELS = 64
MAX_MESSAGE_CHARS = 1024
MAX_TRACE_CHARS = 2048
MAX_CHECKPOINT_BYTES = 4 * 1024
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""
MAX_TYPE_CHARS = 253
MAX_OUTPUTS = 17
"""Declared outputs, and a result that is too large to be inline."""
MAX_ARRAY_ITEMS = 10_000_000
MAX_TASK_BYTES = 16 * 1024
"""args, kwargs and an array's inline items together, as compact JSON."""
MAX_LOST_WORKERS = 3
"""A Task ends when so many different workers in a row died while they ran it, unless the operator's settings say
otherwise."""
MAX_FAILED_CHARS = 1024
"""Of the failed indices that the status shows."""


def payload_bytes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Size of a Task's payload, as compact JSON in UTF-8: what `MAX_PAYLOAD_BYTES` bounds."""
    return json_bytes([args, kwargs])


def json_bytes(value: Any) -> int:
    """Size of a value, as compact JSON in UTF-8."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass"))


def nested_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has lists or objects within each other more than that many levels deep. Not recursive
    itself.
    """
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            child
            for item in layer
            if isinstance(item, list | tuple | dict)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not layer:
            return False
    return any(isinstance(item, list | tuple | dict) for item in layer)


class RetryPolicy(Model):
    """How often and how soon a failed attempt is followed by another."""

    max_attempts: int = Field(default=3, ge=1, le=100)
    backoff_seconds: int = Field(default=5, ge=0, le=86400)
    backoff_factor: int = Field(default=2, ge=1, le=10)
    max_backoff_seconds: int = Field(default=600, ge=0, le=86400)
    jitter_percent: int = Field(default=10, ge=0, le=100)
    retry_on: tuple[str, ...] = ()
    """Classes of errors, base classes too, after which another attempt follows; empty means all."""
    no_retry_on: tuple[str, ...] = ()
    """Classes of errors after which none does; stronger than `retry_on`."""


class Input(Model):
    """An object that the worker fetches before the handler runs."""

    name: str
    key: str
    """Key below the namespace's prefix in the bucket."""


class Output(Model):
    """A file that the handler writes and the worker stores."""

    name: str
    content_type: str = "application/octet-stream"


class ItemsFormat(StrEnum):
    """How the items of an array lie in their object."""

    JSON_LINES = "JSONLines"
    """One JSON value a line; empty lines are none."""
    CSV = "CSV"
    """RFC 4180 with a header; an item is an object of strings by the header's names."""


class ItemsFrom(Model):
    """The object that has an array's items."""

    key: str
    """Key below the namespace's prefix in the bucket."""
    format: ItemsFormat = ItemsFormat.JSON_LINES
    delimiter: str | None = Field(default=None, pattern=r'^[^"\r\n]$')
    """Between the fields of CSV; a comma if not said."""


class ArraySpec(Model):
    """Makes a Task stand for many items, each of which is given to the handler. Exactly one of the first three is
    set.
    """

    count: int | None = Field(default=None, ge=1, le=MAX_ARRAY_ITEMS)
    """So many items, which are their own indices, from 0."""
    items: tuple[Any, ...] | None = None
    items_from: ItemsFrom | None = None
    indexes: str | None = None
    """Only these, as ranges such as `3,7-9`; all if not said."""
    failed_of: str | None = None
    """Uid of an array of the same namespace that has ended: only the items that failed there."""
    parallelism: int | None = Field(default=None, ge=1, le=10_000)
    """Chunks handed out at a time; if not said, twice the slots of the workers of its queue."""
    max_failures: int | None = Field(default=None, ge=0, le=MAX_ARRAY_ITEMS)
    """More failed items than this end the Task; if not said, all items are run first, and any failed one fails the
    Task."""


class Isolation(StrEnum):
    """Where a Task runs."""

    WORKER = "Worker"
    """In a warm worker of a WorkerPool, beside others."""
    POD = "Pod"
    """In a pod of its own, one for each attempt."""


class DependencyOutcome(StrEnum):
    """What a dependency has to come to."""

    SUCCEEDED = "Succeeded"
    FINISHED = "Finished"
    """Any end."""


class Dependency(Model):
    """A Task of the same namespace that has to end first."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)
    """It becomes part of a URL, so nothing else may be in it."""
    outcome: DependencyOutcome = DependencyOutcome.SUCCEEDED


class TaskSpec(Model):
    """What the user wants run."""

    handler: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    queue: str = "default"
    isolation: Isolation = Isolation.WORKER
    priority: int = Field(default=0, ge=0, le=9)
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    retry_policy: RetryPolicy = RetryPolicy()
    attempt_timeout_seconds: int | None = Field(default=None, ge=1, le=604800)
    active_deadline_seconds: int | None = Field(default=None, ge=1, le=2592000)
    queue_timeout_seconds: int | None = Field(default=None, ge=1, le=2592000)
    not_before: Time | None = None
    depends_on: tuple[Dependency, ...] = ()
    notify: tuple[str, ...] = ()
    """Webhooks of the namespace that are told of the end."""
    suspend: bool = False
    cancel: bool = False
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=315360000)
    array: ArraySpec | None = None


class StoredOutput(Model):
    """An output as it lies in the object store."""

    name: str
    key: str
    """Full key in the bucket."""
    size_bytes: Count
    sha256: str
    content_type: str


class LastError(Model):
    """How the latest failed attempt ended."""

    attempt: int
    reason: Reason
    type: str = ""
    message: str = ""
    trace: str = ""


class Progress(Model):
    """How far the running attempt has come, as its handler says."""

    done: Count = 0
    total: Count | None = None
    message: PlainText = ""


class ArrayStatus(Model):
    """How far an array is. What each item came to is in the history."""

    items: str = ""
    """For printing: ended and all items, such as `730/1000`; with the failed ones if there are any."""
    total: int | None = Field(default=None, ge=0)
    """None until the items of an object are counted."""
    succeeded: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    """Those that will not be run again."""
    running: int = Field(default=0, ge=0)
    """Items of the chunks that workers hold."""
    retried: int = Field(default=0, ge=0)
    """Ended items that took more than one attempt."""
    chunk_items: int = Field(default=0, ge=0)
    """Items that a chunk has at the moment, as measured."""
    failed_indexes: str = ""
    """As ranges; of too many only the first, and then it ends with `,...`."""


class TaskStatus(Model):
    """What the operator knows of a Task; the operator is its only writer."""

    observed_generation: int = 0
    phase: Phase | None = None
    reason: str = ""
    message: str = ""
    attempt: int = 1
    handbacks: int = 0
    worker: str | None = None
    next_attempt_time: Time | None = None
    queued_time: Time | None = None
    unknown_handler_time: Time | None = None
    """Since when workers did not know the handler, while one that does is waited for."""
    start_time: Time | None = None
    completion_time: Time | None = None
    duration: str | None = None
    last_error: LastError | None = None
    progress: Progress | None = None
    array: ArrayStatus | None = None
    checkpoint: str | None = None
    attempts: int = 0
    lost_workers: tuple[str, ...] = ()
    """Different workers that died in a row while they ran it."""
    duplicate_deliveries: int = 0
    stale_events: int = 0
    result: Any = None
    outputs: tuple[StoredOutput, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def to_object(self) -> dict[str, Any]:
        """The JSON that goes under `/status`; unset fields are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=False)


def _owner(meta: Mapping[str, Any]) -> Owner | None:
    for each in meta.get("ownerReferences") or ():
        if each.get("controller") and str(each.get("apiVersion")).startswith(f"{GROUP}/"):
            return Owner(kind=each["kind"], name=each["name"], uid=each["uid"])
    return None


class Owner(Model):
    """The resource that created a Task and is its controller."""

    kind: str
    name: str
    uid: str


class Task(Model):
    """One unit of work: identity, specification and status."""

    PLURAL: ClassVar[str] = "tasks"
    uid: str
    namespace: str
    name: str
    generation: int = 1
    created: Time
    deleting: bool = False
    """Its deletion was asked for, and something still keeps the object: a finalizer, or a foreground deletion."""
    labels: dict[str, str] = Field(default_factory=dict)
    """The first 64 by name: nothing bounds their number in Kubernetes, and each event carries them."""
    annotated_traceparent: str = ""
    owner: Owner | None = None
    """Its controller, if that is a resource of TaskFlow."""
    scheduled: ScheduledRun | None = None
    """None if it is no run of a TaskSchedule."""
    payload_too_deep: bool = False
    """args, kwargs or array.items are nested deeper than `MAX_JSON_LEVELS`, and were left out when the object was
    read."""
    unreadable: str = ""
    """What of the specification could not be read, and was left out; such a Task is not run."""
    spec: TaskSpec
    status: TaskStatus = TaskStatus()

    @property
    def traceparent(self) -> str:
        """W3C trace context: the annotation's, or one derived from the uid, the same after every restart."""
        if TRACEPARENT.fullmatch(self.annotated_traceparent):
            return self.annotated_traceparent
        digest = hashlib.sha256(self.uid.encode()).hexdigest()
        return f"00-{digest[:32]}-{digest[32:48]}-01"

    @classmethod
    def from_object(cls, body: dict[str, Any]) -> Task:
        """Read a Kubernetes object, whatever its user wrote: a Task that cannot be read could not be ended either.

        Raises:
            pydantic.ValidationError: the API server's own part of it, `metadata`, is broken.
        """
        meta = body["metadata"]
        spec = dict(body["spec"])
        array = spec.get("array")
        items = array.get("items") if isinstance(array, dict) else None
        too_deep = nested_deeper([spec.get("args"), spec.get("kwargs"), items], MAX_JSON_LEVELS + 1)
        if too_deep:
            # Nothing that handles it later could: serialisers and parsers give up on it, and it will be refused anyway.
            spec |= {"args": [], "kwargs": {}}
            spec.pop("array", None)
        readable, problem = readable_fields(TaskSpec, spec, {"handler": ""})
        # A status is ours and written anew as a whole; what another version left there that we cannot read is lost.
        status, _ = readable_fields(TaskStatus, body.get("status") or {}, {})
        return cls(
            uid=meta["uid"],
            namespace=meta["namespace"],
            name=meta["name"],
            generation=meta.get("generation", 1),
            created=meta["creationTimestamp"],
            deleting=meta.get("deletionTimestamp") is not None,
            labels=dict(sorted((meta.get("labels") or {}).items())[:MAX_LABELS]),
            annotated_traceparent=(meta.get("annotations") or {}).get(ANNOTATION_TRACEPARENT, ""),
            owner=_owner(meta),
            scheduled=scheduled_run(meta),
            payload_too_deep=too_deep,
            unreadable=problem,
            spec=readable,
            status=status,
        )

    @property
    def plural(self) -> str:
        """Plural name of the kind."""
        return self.PLURAL

    def status_object(self) -> dict[str, Any]:
        """The JSON of `/status`."""
        return self.status.to_object()

    @property
    def isolated(self) -> bool:
        """Each of its attempts runs in a pod of its own."""
        return self.spec.isolation is Isolation.POD

    @property
    def cancelled(self) -> bool:
        """The user wants it to end: by `spec.cancel`, or by deleting it."""
        return self.spec.cancel or self.deleting

    @property
    def finished(self) -> bool:
        """The Task has arrived at a terminal phase."""
        return self.status.phase is not None and self.status.phase.terminal
