"""Models of answers. They keep fields of newer servers that they do not know."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

ENDED = frozenset({"Succeeded", "Failed", "Cancelled"})


class Response(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="allow")


class TaskSummary(Response):
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
        """Whether the Task has finished, successfully or not."""
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
    """A Task with its attempts and timeline, which are None if the history did not answer."""

    attempts: list[dict[str, Any]] | None = None
    timeline: list[dict[str, Any]] | None = None


class TaskPage(Response):
    """A page of a list."""

    items: list[TaskSummary]
    next_cursor: str | None


class BatchItem(Response):
    """The result of one Task of a batch."""

    status: int
    name: str | None = None
    problem: dict[str, Any] | None = None


class Batch(Response):
    """The results of a batch, in the order of the request."""

    items: list[BatchItem]


class Why(Response):
    """Why a Task waits."""

    waiting: bool
    phase: str
    reason: str
    message: str
    queue_position: int | None = None
    estimated_start: datetime | None = None


class Pool(Response):
    """A WorkerPool."""

    name: str
    namespace: str
    queues: list[str]
    paused: bool
    drain: bool


class PoolPage(Response):
    """A page of a list."""

    items: list[Pool]
    next_cursor: str | None


class Schedule(Response):
    """A TaskSchedule."""

    name: str
    namespace: str
    uid: str
    spec: dict[str, Any]
    labels: dict[str, str]
    suspended: bool
    last_schedule_time: datetime | None
    last_task_name: str | None
    last_outcome: str | None
    next_schedule_time: datetime | None
    next_schedule_times: list[datetime]
    active: list[str]
    skipped: int
    missed: int
    backfills: list[dict[str, Any]]
    conditions: list[dict[str, Any]]
    reason: str
    message: str
    etag: str = ""
    """For `if_match`."""


class SchedulePage(Response):
    """A page of a list."""

    items: list[Schedule]
    next_cursor: str | None


class ScheduleRun(Response):
    """What became of a tick: `outcome` is Created, Skipped or Missed."""

    scheduled_time: datetime
    outcome: str
    reason: str
    message: str
    manual: bool
    backfill: str | None
    task_name: str | None
    phase: str | None


class ScheduleRunPage(Response):
    """A page of a list."""

    items: list[ScheduleRun]
    next_cursor: str | None


class Tick(Response):
    """A future tick."""

    scheduled_time: datetime
    local_time: str


class NextTicks(Response):
    """The next ticks of a timing."""

    items: list[Tick]
    time_zone: str
    resolved_schedules: list[str]
    suspended: bool


class RunNow(Response):
    """A run that was asked for; without a `task` while it waits for the end of an earlier one."""

    task_name: str
    task: Task | None


class Handler(Response):
    """A handler, as a TaskTemplate describes it."""

    name: str
    template: str
    description: str
    kwargs: dict[str, Any] | None
    """JSON Schema of the keyword arguments; None if they are not checked."""
    deprecated: str
    """Why the handler should not be used any more; empty if it may be."""
    example: dict[str, Any]
    """A body that creates a Task of the handler."""


class HandlerPage(Response):
    """A page of a list."""

    items: list[Handler]
    next_cursor: str | None


class Operation(Response):
    """An operation on many Tasks."""

    id: str
    verb: str
    state: str
    message: str
    matched: int
    done: int
    failed: int


class Upload(Response):
    """A link to upload an object with `PUT`, and the headers to send."""

    key: str
    url: str
    headers: dict[str, str]
    expires_at: datetime


class Multipart(Response):
    """A multipart upload that was started."""

    id: str
    key: str
    min_part_bytes: int
    max_parts: int


class PartLink(Response):
    """A link to upload a part with `PUT`."""

    number: int
    url: str


class PartLinks(Response):
    """Links to upload parts."""

    parts: list[PartLink]


class File(Response):
    """An object."""

    key: str
    size_bytes: int


class FileLink(File):
    """An object and a link to download it."""

    url: str
    expires_at: datetime


class FilePage(Response):
    """A page of a list."""

    items: list[File]
    next_after: str | None = None


class Event(Response):
    """A change of a Task: `type` added, changed, deleted or current."""

    id: str
    type: str
    task: dict[str, Any]

    @property
    def ended(self) -> bool:
        """Whether this is the last event of the Task."""
        return self.type == "deleted" or self.task.get("phase") in ENDED


class ApiKey(Response):
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


class ApiKeys(Response):
    """API keys, oldest first."""

    items: list[ApiKey]


class Webhook(Response):
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


class Webhooks(Response):
    """Endpoints, by name."""

    items: list[Webhook]


class Delivery(Response):
    """A message to one endpoint: `state` is Pending, Delivered or Failed."""

    id: str
    webhook: str
    event_id: str
    type: str
    task_name: str | None
    state: str
    attempts: int
    tries: list[dict[str, Any]]


class DeliveryPage(Response):
    """A page of a list."""

    items: list[Delivery]
    next_cursor: str | None
