"""Request bodies of Tasks. The bounds are those of crds/tasks.taskflow.dev.yaml, and a test compares the two."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Header
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from taskflow_api.http.body import Body, Instant, MediaType, ObjectKey, WebhookName, examples
from taskflow_api.http.names import DNS_NAME, HANDLER, LABEL, MAX_LABEL_CHARS, MAX_NAME_CHARS

_LABEL_PART = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY, _LABEL_VALUE = re.compile(rf"({DNS_NAME}/)?{_LABEL_PART}"), re.compile(rf"({_LABEL_PART})?")
_MAX_LABEL_KEY_CHARS = MAX_NAME_CHARS + 1 + MAX_LABEL_CHARS


def label_syntax(labels: dict[str, str]) -> dict[str, str]:
    """The labels, if Kubernetes admits them. Raises `ValueError`."""
    for key, value in labels.items():
        if len(key) > _MAX_LABEL_KEY_CHARS or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ValueError("expected labels of Kubernetes: PREFIX/NAME or NAME, and values of up to 63 characters")
    return labels


Labels = Annotated[dict[str, str], Field(max_length=64), AfterValidator(label_syntax)]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FIRST_TIME, END_OF_TIMES = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
Time = Annotated[Instant, Field(ge=FIRST_TIME, lt=END_OF_TIMES)]
Seconds = Annotated[int, Field(ge=0, le=86400)]
ResourceName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARS, pattern=f"^{DNS_NAME}$")]
ErrorType = Annotated[str, StringConstraints(min_length=1, max_length=253)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255, pattern=r"^[\x21-\x7e]+$", description="Identifies the request, so that it can be repeated."
    ),
]


class RetryPolicyBody(Body):
    """How often a failed attempt is retried, and after which delay."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff_seconds: Seconds = 5
    backoff_factor: Annotated[int, Field(ge=1, le=10)] = 2
    max_backoff_seconds: Seconds = 600
    jitter_percent: Annotated[int, Field(ge=0, le=100)] = 10
    retry_on: Annotated[list[ErrorType], Field(max_length=32)] = []
    no_retry_on: Annotated[list[ErrorType], Field(max_length=32)] = []


class InputBody(Body):
    """An object that the worker downloads before the handler runs."""

    name: FileName
    key: ObjectKey


class OutputBody(Body):
    """A file that the handler writes and the worker uploads."""

    name: FileName
    content_type: MediaType = "application/octet-stream"


class DependencyBody(Body):
    """A Task of the same namespace that must finish first."""

    name: ResourceName
    # A strict model does not accept a string for an enumeration.
    outcome: Literal["Succeeded", "Finished"] = "Succeeded"


class ItemsFromBody(Body):
    """The object that contains the items of an array."""

    key: ObjectKey
    format: Literal["JSONLines", "CSV"] = "JSONLines"
    delimiter: Annotated[
        str | None,
        Field(description="The character between the fields of CSV. The default is a comma."),
        StringConstraints(min_length=1, max_length=1, pattern=r'^[^"\r\n]$'),
    ] = None

    @model_validator(mode="after")
    def _delimits_csv(self) -> ItemsFromBody:
        if self.delimiter is not None and self.format != "CSV":
            raise ValueError("delimiter can only be set with format CSV")
        return self


class ArrayBody(Body):
    """Makes the Task an array of items: exactly one of count, items and itemsFrom."""

    count: Annotated[int | None, Field(ge=1, le=10_000_000)] = None
    items: Annotated[list[Any] | None, Field(min_length=1, max_length=4096)] = None
    items_from: ItemsFromBody | None = None
    indexes: Annotated[
        str | None,
        Field(description="Only these items, as ranges such as 3,7-9."),
        StringConstraints(
            min_length=1, max_length=4096, pattern=r"^[0-9]{1,8}(-[0-9]{1,8})?(,[0-9]{1,8}(-[0-9]{1,8})?)*$"
        ),
    ] = None
    failed_of: Annotated[
        str | None,
        Field(description="Uid of a finished array: only the items that failed there."),
        StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9-]+$"),
    ] = None
    parallelism: Annotated[int | None, Field(ge=1, le=10_000)] = None
    max_failures: Annotated[int | None, Field(ge=0, le=10_000_000)] = None

    @model_validator(mode="after")
    def _one_source(self) -> ArrayBody:
        if [self.count, self.items, self.items_from].count(None) != 2:  # noqa: PLR2004 - one of three
            raise ValueError("expected exactly one of count, items and itemsFrom")
        return self


class TemplateSpecBody(Body):  # type: ignore[no-redef]  # pydantic's plugin adds its own **kwargs
    """The specification of the Tasks that are created from a template."""

    handler: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=HANDLER)]
    args: Annotated[list[Any], Field(max_length=64, description="Together with kwargs, at most 8 KiB as JSON.")] = []
    kwargs: Annotated[
        dict[str, Any], Field(max_length=64, description="Together with args, at most 8 KiB as JSON.")
    ] = {}
    queue: Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_CHARS, pattern=f"^{LABEL}$")] = "default"
    isolation: Literal["Worker", "Pod"] = "Worker"
    priority: Annotated[int, Field(ge=0, le=9, description="Higher priorities run first.")] = 0
    inputs: Annotated[list[InputBody], Field(max_length=16)] = []
    outputs: Annotated[list[OutputBody], Field(max_length=16)] = []
    retry_policy: RetryPolicyBody = RetryPolicyBody()
    attempt_timeout_seconds: Annotated[int | None, Field(ge=1, le=604800)] = None
    active_deadline_seconds: Annotated[int | None, Field(ge=1, le=2592000)] = None
    queue_timeout_seconds: Annotated[int | None, Field(ge=1, le=2592000)] = None
    depends_on: Annotated[list[DependencyBody], Field(max_length=32)] = []
    notify: Annotated[list[WebhookName], Field(max_length=8)] = []
    ttl_seconds_after_finished: Annotated[int | None, Field(ge=0, le=315360000)] = None
    array: ArrayBody | None = None


class TaskSpecBody(TemplateSpecBody):  # type: ignore[no-redef]  # as above
    """The specification of a Task."""

    not_before: Time | None = None
    suspend: bool = False
    cancel: bool = False


class TaskBody(Body):
    """A Task to create, with `name` or `generateName`. With an Idempotency-Key, the name is derived from the key."""

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
    labels: Labels = {}
    spec: TaskSpecBody

    @model_validator(mode="after")
    def _one_name(self) -> TaskBody:
        if self.name is not None and self.generate_name is not None:
            raise ValueError("expected at most one of name and generateName")
        return self

    def spec_json(self) -> dict[str, Any]:
        """The spec for the manifest. Fields that the caller left out are left to the defaults of the API server."""
        return self.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)


class SpecChangeBody(Body):
    """The fields of a Task that can change. Null removes a deadline."""

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
