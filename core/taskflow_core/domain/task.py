"""The Task resource, field for field as the CRD has it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from taskflow_core.domain.phases import Phase, Reason

MAX_PAYLOAD_BYTES = 8 * 1024
MAX_RESULT_BYTES = 4 * 1024
MAX_JSON_LEVELS = 50
"""Nesting of payloads and results; beyond some hundreds, JSON parsers give up."""
MAX_MESSAGE_CHARS = 1024
MAX_TYPE_CHARS = 253


def _as_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _rfc3339(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[datetime, AfterValidator(_as_utc), PlainSerializer(_rfc3339, when_used="json")]
"""A time with a zone; whole seconds in JSON, as Kubernetes writes them."""


class Model(BaseModel):
    """Frozen, camelCase on the wire, tolerant of fields that a newer version added."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


def payload_bytes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Size of a Task's payload, as compact JSON in UTF-8: what `MAX_PAYLOAD_BYTES` bounds."""
    text = json.dumps([args, kwargs], separators=(",", ":"), ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass"))


def nested_deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value has lists or objects within each other more than that many levels deep. Not recursive itself."""
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


class Input(Model):
    """An object that the worker fetches before the handler runs."""

    name: str
    key: str
    """Key below the namespace's prefix in the bucket."""


class Output(Model):
    """A file that the handler writes and the worker stores."""

    name: str
    content_type: str = "application/octet-stream"


class TaskSpec(Model):
    """What the user wants run."""

    handler: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    queue: str = "default"
    priority: int = Field(default=0, ge=0, le=9)
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    retry_policy: RetryPolicy = RetryPolicy()


class StoredOutput(Model):
    """An output as it lies in the object store."""

    name: str
    key: str
    """Full key in the bucket."""
    size_bytes: int
    sha256: str
    content_type: str


class LastError(Model):
    """How the latest failed attempt ended."""

    attempt: int
    reason: Reason
    type: str = ""
    message: str = ""


class Condition(Model):
    """One condition by the Kubernetes API conventions (KEP-1623)."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: Time
    observed_generation: int = 0


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
    start_time: Time | None = None
    completion_time: Time | None = None
    duration: str | None = None
    last_error: LastError | None = None
    result: Any = None
    outputs: tuple[StoredOutput, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def to_object(self) -> dict[str, Any]:
        """The JSON that goes under `/status`; unset fields are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=False)


class Task(Model):
    """One unit of work: identity, wish and state."""

    uid: str
    namespace: str
    name: str
    generation: int = 1
    created: Time
    payload_too_deep: bool = False
    """args or kwargs are nested deeper than `MAX_JSON_LEVELS`, and were left out when the object was read."""
    spec: TaskSpec
    status: TaskStatus = TaskStatus()

    @classmethod
    def from_object(cls, body: dict[str, Any]) -> Task:
        """Read a Kubernetes object.

        Raises:
            pydantic.ValidationError: the object is not a Task as the CRD admits it.
        """
        meta = body["metadata"]
        spec = dict(body["spec"])
        too_deep = nested_deeper([spec.get("args"), spec.get("kwargs")], MAX_JSON_LEVELS + 1)
        if too_deep:
            # Nothing that handles it later could: serialisers and parsers give up on it, and it will be refused anyway.
            spec |= {"args": [], "kwargs": {}}
        return cls(
            uid=meta["uid"],
            namespace=meta["namespace"],
            name=meta["name"],
            generation=meta.get("generation", 1),
            created=meta["creationTimestamp"],
            payload_too_deep=too_deep,
            spec=TaskSpec.model_validate(spec),
            status=TaskStatus.model_validate(body.get("status") or {}),
        )

    @property
    def finished(self) -> bool:
        """The Task has arrived at a terminal phase."""
        return self.status.phase is not None and self.status.phase.terminal
