"""Bodies of requests. The bounds are those of crds/tasks.taskflow.dev.yaml; a test holds the two together."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from taskflow_api.access import DNS_NAME, LABEL, MAX_LABEL_CHARS, MAX_NAME_CHARS


def _relative(key: str) -> str:
    if key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError("key is relative to the namespace's prefix and has no empty, '.' or '..' part")
    return key


def _rfc3339(value: object) -> object:
    # pydantic also takes numbers, and JSON has no other form of a time than text, which a strict model refuses.
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC3339.fullmatch(value)):
        return value
    raise ValueError("expected a time by RFC 3339, such as 2026-01-31T12:00:00Z")


Instant = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339)]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
ObjectKey = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(_relative)
]
MediaType = Annotated[
    str,
    StringConstraints(
        max_length=127,
        pattern=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; ?[A-Za-z0-9-]+=[A-Za-z0-9._-]+)?$",
    ),
]
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
FIRST_TIME, END_OF_TIMES = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
Seconds = Annotated[int, Field(ge=0, le=86400)]
ResourceName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARS, pattern=f"^{DNS_NAME}$")]
WebhookName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_CHARS, pattern=f"^{LABEL}$")]
ErrorType = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class Body(BaseModel):
    """JSON from a caller: camelCase, exact types, no unknown field."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, extra="forbid", strict=True)


def examples(*bodies: dict[str, JsonValue]) -> ConfigDict:
    """Of a body, for the OpenAPI document; a test sends each of them."""
    return ConfigDict(json_schema_extra={"examples": list(bodies)})


class RetryPolicyBody(Body):
    """How often and how soon a failed attempt is followed by another."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff_seconds: Seconds = 5
    backoff_factor: Annotated[int, Field(ge=1, le=10)] = 2
    max_backoff_seconds: Seconds = 600
    jitter_percent: Annotated[int, Field(ge=0, le=100)] = 10
    retry_on: Annotated[list[ErrorType], Field(max_length=32)] = []
    no_retry_on: Annotated[list[ErrorType], Field(max_length=32)] = []


class InputBody(Body):
    """An object that the worker fetches before the handler runs."""

    name: FileName
    key: ObjectKey


class OutputBody(Body):
    """A file that the handler writes and the worker stores."""

    name: FileName
    content_type: MediaType = "application/octet-stream"


class DependencyBody(Body):
    """A Task of the same namespace that has to end first."""

    name: ResourceName
    # Strict models take no string for an enumeration, and JSON has nothing else.
    outcome: Literal["Succeeded", "Finished"] = "Succeeded"


class ItemsFromBody(Body):
    """The object that has an array's items."""

    key: ObjectKey
    format: Literal["JSONLines", "CSV"] = "JSONLines"


class ArrayBody(Body):
    """Makes the Task stand for many items: exactly one of count, items and itemsFrom."""

    count: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    items: Annotated[list[Any] | None, Field(min_length=1, max_length=4096)] = None
    items_from: ItemsFromBody | None = None
    indexes: Annotated[
        str | None,
        Field(description="Only these, as ranges such as 3,7-9."),
        StringConstraints(
            min_length=1, max_length=4096, pattern=r"^[0-9]{1,8}(-[0-9]{1,8})?(,[0-9]{1,8}(-[0-9]{1,8})?)*$"
        ),
    ] = None
    failed_of: Annotated[
        str | None,
        Field(description="Uid of an array that has ended: only what failed there."),
        StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9-]+$"),
    ] = None
    parallelism: Annotated[int | None, Field(ge=1, le=10_000)] = None
    max_failures: Annotated[int | None, Field(ge=0, le=10_000_000)] = None

    @model_validator(mode="after")
    def _one_source(self) -> ArrayBody:
        if [self.count, self.items, self.items_from].count(None) != 2:  # noqa: PLR2004 - one of three
            raise ValueError("expected exactly one of count, items and itemsFrom")
        return self


class TaskSpecBody(Body):  # type: ignore[no-redef]  # pydantic's plugin gives __init__ a **kwargs of its own
    """What is wanted; immutable."""

    handler: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")]
    args: Annotated[list[Any], Field(max_length=64, description="With kwargs at most 8 KiB as JSON.")] = []
    kwargs: Annotated[dict[str, Any], Field(max_length=64, description="With args at most 8 KiB as JSON.")] = {}
    queue: Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_CHARS, pattern=f"^{LABEL}$")] = "default"
    isolation: Literal["Worker", "Pod"] = "Worker"
    priority: Annotated[int, Field(ge=0, le=9, description="Higher goes first.")] = 0
    inputs: Annotated[list[InputBody], Field(max_length=16)] = []
    outputs: Annotated[list[OutputBody], Field(max_length=16)] = []
    retry_policy: RetryPolicyBody = RetryPolicyBody()
    attempt_timeout_seconds: Annotated[int | None, Field(ge=1, le=604800)] = None
    active_deadline_seconds: Annotated[int | None, Field(ge=1, le=2592000)] = None
    queue_timeout_seconds: Annotated[int | None, Field(ge=1, le=2592000)] = None
    not_before: Annotated[Instant, Field(ge=FIRST_TIME, lt=END_OF_TIMES)] | None = None
    depends_on: Annotated[list[DependencyBody], Field(max_length=32)] = []
    notify: Annotated[list[WebhookName], Field(max_length=8)] = []
    suspend: bool = False
    cancel: bool = False
    ttl_seconds_after_finished: Annotated[int | None, Field(ge=0, le=315360000)] = None
    array: ArrayBody | None = None


class TaskBody(Body):
    """A Task to create; `name` or `generateName`, unless an Idempotency-Key gives it its name."""

    model_config = examples(
        {"name": "hello", "spec": {"handler": "taskflow.echo", "kwargs": {"value": "hello, world"}}},
        {
            "generateName": "report-",
            "labels": {"team": "a"},
            "spec": {
                "handler": "reports.lines",
                "kwargs": {"prefix": "ERROR"},
                "queue": "reports",
                "inputs": [{"name": "log.txt", "key": "in/log.txt"}],
                "outputs": [{"name": "matches.txt", "contentType": "text/plain"}],
                "retryPolicy": {"maxAttempts": 5, "backoffSeconds": 10},
                "attemptTimeoutSeconds": 600,
            },
        },
        {"name": "many", "spec": {"handler": "taskflow.echo", "array": {"count": 1000, "parallelism": 50}}},
    )

    name: ResourceName | None = None
    generate_name: Annotated[
        str | None,
        Field(description="The server appends five characters."),
        StringConstraints(min_length=1, max_length=248, pattern=r"^[a-z0-9][-a-z0-9.]*$"),
    ] = None
    labels: Annotated[dict[str, str], Field(max_length=64)] = {}
    spec: TaskSpecBody

    @model_validator(mode="after")
    def _one_name(self) -> TaskBody:
        if self.name is not None and self.generate_name is not None:
            raise ValueError("expected at most one of name and generateName")
        return self

    def to_object(self, api_version: str) -> dict[str, Any]:
        """The Kubernetes object; what the caller left out is left to the API server's defaults."""
        metadata: dict[str, Any] = {}
        if self.name:
            metadata["name"] = self.name
        if self.generate_name:
            metadata["generateName"] = self.generate_name
        if self.labels:
            metadata["labels"] = self.labels
        spec = self.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return {"apiVersion": api_version, "kind": "Task", "metadata": metadata, "spec": spec}


class SpecChangeBody(Body):
    """What may change of a Task; null removes a limit."""

    priority: Annotated[int, Field(ge=0, le=9)] = 0
    suspend: bool = False
    cancel: Annotated[bool, Field(description="A cancelled Task stays cancelled.")] = False
    active_deadline_seconds: Annotated[int | None, Field(ge=1, le=2592000)] = None
    queue_timeout_seconds: Annotated[int | None, Field(ge=1, le=2592000)] = None
    ttl_seconds_after_finished: Annotated[int | None, Field(ge=0, le=315360000)] = None


class TaskChangeBody(Body):
    """A JSON merge patch (RFC 7396) of a Task."""

    model_config = examples({"spec": {"suspend": True}}, {"spec": {"priority": 9, "activeDeadlineSeconds": None}})

    spec: SpecChangeBody


class UploadBody(Body):
    """An object to store; a Task names it as `inputs[].key`."""

    model_config = examples({"key": "in/log.txt", "contentType": "text/plain"})

    key: ObjectKey
    content_type: MediaType = "application/octet-stream"
