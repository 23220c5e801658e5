"""Answers. What a newer server says besides is kept as it came."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})


class Answered(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="allow")


class TaskSummary(Answered):
    """A Task in a list."""

    uid: str
    namespace: str
    name: str
    handler: str
    queue: str
    priority: int
    phase: str
    reason: str
    message: str
    attempt: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def finished(self) -> bool:
        """It has ended, well or badly."""
        return self.phase in ENDED


class Task(TaskSummary):
    """A Task."""

    live: bool
    spec: dict[str, Any]
    result: Any = None
    outputs: list[dict[str, Any]] = []
    labels: dict[str, str] | None = None
    worker: str | None = None
    etag: str = ""
    """For `if_match` and `if_none_match`."""


class TaskDetail(Task):
    """A Task with its past; None where the history did not answer."""

    attempts: list[dict[str, Any]] | None = None
    timeline: list[dict[str, Any]] | None = None


class TaskPage(Answered):
    """Part of a list."""

    items: list[TaskSummary]
    next_cursor: str | None


class BatchItem(Answered):
    """What became of one Task of a batch."""

    status: int
    name: str | None = None
    problem: dict[str, Any] | None = None


class Batch(Answered):
    """In the order of the request."""

    items: list[BatchItem]


class Why(Answered):
    """Why a Task waits."""

    waiting: bool
    phase: str
    reason: str
    message: str
    queue_position: int | None = None
    estimated_start: datetime | None = None


class Pool(Answered):
    """A WorkerPool."""

    name: str
    namespace: str
    queues: list[str]
    paused: bool
    drain: bool


class PoolPage(Answered):
    """Part of a list."""

    items: list[Pool]
    next_cursor: str | None


class Operation(Answered):
    """Something done with many Tasks."""

    id: str
    verb: str
    state: str
    message: str
    matched: int
    done: int
    failed: int


class Upload(Answered):
    """Where to `PUT` an object, with which headers."""

    key: str
    url: str
    headers: dict[str, str]
    expires_at: datetime


class Multipart(Answered):
    """An upload in parts that has begun."""

    id: str
    key: str
    min_part_bytes: int
    max_parts: int


class PartLink(Answered):
    """Where to `PUT` a part."""

    number: int
    url: str


class PartLinks(Answered):
    """Links of parts."""

    parts: list[PartLink]


class File(Answered):
    """An object."""

    key: str
    size_bytes: int


class FileLink(File):
    """An object and where to get it."""

    url: str
    expires_at: datetime


class FilePage(Answered):
    """Part of a list."""

    items: list[File]
    next_after: str | None = None


class Event(Answered):
    """A change of a Task: `type` added, changed, deleted or current."""

    id: str
    type: str
    task: dict[str, Any]

    @property
    def ended(self) -> bool:
        """Nothing more happens to this Task."""
        return self.type == "deleted" or self.task.get("phase") in ENDED


class ApiKey(Answered):
    """An API key, without its secret."""

    id: str
    namespace: str
    service_account: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    replaced_by: str | None


class NewApiKey(ApiKey):
    """A key with its secret."""

    key: str


class ApiKeys(Answered):
    """Oldest first."""

    items: list[ApiKey]


class Webhook(Answered):
    """An endpoint, without its secret."""

    name: str
    namespace: str
    url: str
    types: list[str]
    tasks: str
    enabled: bool
    disabled_reason: str


class NewWebhook(Webhook):
    """An endpoint with its secret."""

    secret: str


class Webhooks(Answered):
    """By name."""

    items: list[Webhook]


class Delivery(Answered):
    """A message for one endpoint: `state` Pending, Delivered or Failed."""

    id: str
    webhook: str
    event_id: str
    type: str
    task_name: str | None
    state: str
    attempts: int
    tries: list[dict[str, Any]]


class DeliveryPage(Answered):
    """Part of a list."""

    items: list[Delivery]
    next_cursor: str | None
