"""The TaskSchedule resource, field for field as the CRD has it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field

from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.resource import Condition, Count, Model, Time, readable_fields
from taskflow_core.domain.task import Owner, Task

KIND = "TaskSchedule"
MAX_NAME = 52
"""Characters of a TaskSchedule's name, which becomes part of the names of its Tasks."""
DEFAULT_CATCH_UP_LIMIT = 100


class Every(Model):
    """Ticks at equal distances of real time."""

    seconds: int = Field(ge=10, le=31_536_000)
    anchor: Time | None = None
    """One of the ticks; 1970-01-01T00:00:00Z if not said."""


class ConcurrencyPolicy(StrEnum):
    """What happens at a tick while an earlier run is not finished."""

    FORBID = "Forbid"
    """The tick is skipped."""
    ALLOW = "Allow"
    """The run starts beside the others."""
    REPLACE = "Replace"
    """The earlier run is cancelled; the new one starts after its end."""
    QUEUE = "Queue"
    """The newest tick waits for the end of the earlier run."""


class CatchUpPolicy(StrEnum):
    """What happens with ticks that passed while nothing could start."""

    NONE = "None"
    """All are missed, but one that is younger than a minute."""
    LAST = "Last"
    """The newest one runs."""
    ALL = "All"
    """The newest `limit` run, oldest first."""


class CatchUp(Model):
    """How missed ticks are caught up."""

    policy: CatchUpPolicy = CatchUpPolicy.LAST
    limit: int = Field(default=DEFAULT_CATCH_UP_LIMIT, ge=1, le=1000)


class PassedTimes(Model):
    """Names of the keyword arguments that get a run's times, as RFC 3339 in UTC."""

    scheduled_time: str | None = None
    previous_time: str | None = None
    next_time: str | None = None


class BackfillOrder(StrEnum):
    """In which order a backfill creates its runs."""

    OLDEST_FIRST = "OldestFirst"
    NEWEST_FIRST = "NewestFirst"


class Backfill(Model):
    """Runs for ticks of the past: those of `[from, to)` by the schedule's timing of today."""

    name: str
    from_: Time = Field(alias="from")
    to: Time
    parallelism: int = Field(default=1, ge=1, le=100)
    order: BackfillOrder = BackfillOrder.OLDEST_FIRST


class TemplateMetadata(Model):
    """Metadata of the Tasks that are created."""

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class TaskTemplate(Model):
    """What a run is."""

    metadata: TemplateMetadata = TemplateMetadata()
    spec: dict[str, Any]
    """The Task's specification as JSON, as the user wrote it."""


class TaskScheduleSpec(Model):
    """What the user wants run, and when."""

    schedules: tuple[str, ...] = ()
    every: Every | None = None
    time_zone: str = "Etc/UTC"
    start_time: Time | None = None
    end_time: Time | None = None
    """There is no tick at or after it."""
    concurrency_policy: ConcurrencyPolicy = ConcurrencyPolicy.FORBID
    catch_up: CatchUp = CatchUp()
    starting_deadline_seconds: int | None = Field(default=None, ge=1, le=31_536_000)
    jitter_seconds: int = Field(default=0, ge=0, le=3600)
    suspend: bool = False
    pass_: PassedTimes = Field(default=PassedTimes(), alias="pass")
    backfills: tuple[Backfill, ...] = ()
    successful_history_limit: int = Field(default=3, ge=0, le=100)
    failed_history_limit: int = Field(default=3, ge=0, le=100)
    task_template: TaskTemplate

    @property
    def starting_deadline(self) -> timedelta | None:
        """A run may start this long after its tick; None is without a bound."""
        seconds = self.starting_deadline_seconds
        return None if seconds is None else timedelta(seconds=seconds)

    @property
    def timing(self) -> str:
        """Digest (16 hexadecimal digits) of the fields that say when the ticks are."""
        fields = {"schedules", "every", "time_zone", "start_time", "end_time"}
        text = json.dumps(self.model_dump(mode="json", include=fields), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class BackfillStatus(Model):
    """How far a backfill is."""

    name: str
    cursor: Time | None = None
    """The latest tick that was decided on; the earliest with `NewestFirst`. None before the first."""
    created: Count = 0
    failed: Count = 0
    """Runs that did not succeed."""
    running: tuple[Time, ...] = ()
    """Ticks of its runs that have not ended, as far as their end was counted."""
    complete: bool = False


class LastOutcome(StrEnum):
    """What came of a schedule's latest Task."""

    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @classmethod
    def of(cls, phase: Phase | None) -> LastOutcome:
        """The outcome of a Task in this phase."""
        return cls(phase) if phase is not None and phase.terminal else cls.ACTIVE


class TaskScheduleStatus(Model):
    """What the operator knows of a TaskSchedule; the operator is its only writer."""

    observed_generation: int = 0
    schedule: str = ""
    """For printing: `spec.schedules` or `spec.every` as one text."""
    timing: str = ""
    """Digest of the timing that `cursor` belongs to; empty before the first decision."""
    cursor: Time | None = None
    """Every tick up to here is decided on: run, skipped or missed. None stands for the schedule's creation."""
    last_schedule_time: Time | None = None
    """The latest tick that became a Task."""
    last_task_name: str = ""
    last_outcome: LastOutcome | None = None
    next_schedule_time: Time | None = None
    next_schedule_times: tuple[Time, ...] = ()
    """The next three."""
    resolved_schedules: tuple[str, ...] = ()
    """`spec.schedules` with the numbers that stand for `H`."""
    active: tuple[str, ...] = ()
    """Names of Tasks that have not ended, at most ten, oldest first."""
    active_count: Count = 0
    catching_up_until: Time | None = None
    """The newest tick of a backlog that is being caught up."""
    waiting: Time | None = None
    """A tick that waits for the end of an earlier run. It is not after `cursor`."""
    run_now: str = ""
    """Digest of the latest token of `taskflow.dev/run-now` that was seen to."""
    skipped: Count = 0
    missed: Count = 0
    """At least so many; ticks of an outage are counted up to 1,000."""
    backfills: tuple[BackfillStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def to_object(self) -> dict[str, Any]:
        """The JSON that goes under `/status`; unset fields are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type."""
        return next((each for each in self.conditions if each.type == kind), None)


class TaskSchedule(Model):
    """A TaskSchedule resource."""

    PLURAL: ClassVar[str] = "taskschedules"
    uid: str
    namespace: str
    name: str
    generation: int = 1
    resource_version: str = ""
    created: Time
    deleting: bool = False
    run_now: str = ""
    """Token that asks for a run at once; empty if there is none."""
    unreadable: str = ""
    """What of the specification could not be read, and was left out; such a schedule runs nothing."""
    spec: TaskScheduleSpec
    status: TaskScheduleStatus = TaskScheduleStatus()

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> TaskSchedule:
        """Read a Kubernetes object, whatever its user wrote.

        Raises:
            pydantic.ValidationError: the API server's own part of it, `metadata`, is broken.
        """
        meta = body["metadata"]
        spec, problem = readable_fields(TaskScheduleSpec, dict(body["spec"]), {"taskTemplate": {"spec": {}}})
        status, _ = readable_fields(TaskScheduleStatus, body.get("status") or {}, {})
        return cls(
            uid=meta["uid"],
            namespace=meta["namespace"],
            name=meta["name"],
            generation=meta.get("generation", 1),
            resource_version=meta.get("resourceVersion", ""),
            created=meta["creationTimestamp"],
            deleting=meta.get("deletionTimestamp") is not None,
            run_now=(meta.get("annotations") or {}).get(naming.ANNOTATION_RUN_NOW, ""),
            unreadable=problem,
            spec=spec,
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
    def owner(self) -> Owner:
        """Itself, as the controller of its Tasks."""
        return Owner(kind=KIND, name=self.name, uid=self.uid)

    def created_task(self, task: Task) -> bool:
        """Whether the Task is one of its runs: of this schedule, not of another one that had its name before."""
        return task.owner is not None and task.owner.kind == KIND and task.owner.uid == self.uid
