"""Request bodies of TaskSchedules. The bounds are those of crds/taskschedules.taskflow.dev.yaml, and a test compares
the two.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator

from taskflow_api.http.body import Body, examples
from taskflow_api.http.names import LABEL
from taskflow_api.tasks.schemas import Labels, TemplateSpecBody, Time, label_syntax
from taskflow_core.domain.taskschedule import MAX_NAME

MAX_BACKFILLS = 8
ScheduleName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=f"^{LABEL}$")]
BackfillName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=f"^{LABEL}$")]
Line = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=128,
        pattern=r"^(@(hourly|daily|weekly|monthly|yearly)|[0-9A-Za-z*/,()#-]+( [0-9A-Za-z*/,()#-]+){4})$",
    ),
]
Lines = Annotated[
    list[Line], Field(min_length=1, max_length=16, description="Lines of cron. `H` stands for a number of its own.")
]
TimeZone = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$")]
ConcurrencyPolicy = Literal["Forbid", "Allow", "Replace", "Queue"]
Deadline = Annotated[int | None, Field(ge=1, le=31_536_000, description="A run starts this late at most.")]
Jitter = Annotated[int, Field(ge=0, le=3600)]
HistoryLimit = Annotated[int, Field(ge=0, le=100)]
Argument = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
MAX_TEMPLATE_METADATA = 32
TemplateLabels = Annotated[dict[str, str], Field(max_length=MAX_TEMPLATE_METADATA), AfterValidator(label_syntax)]
Annotation = Annotated[str, StringConstraints(max_length=4096)]


class EveryBody(Body):
    """Ticks at equal distances of real time."""

    seconds: Annotated[int, Field(ge=10, le=31_536_000)]
    anchor: Annotated[Time | None, Field(description="One of the ticks; 1970-01-01T00:00:00Z if left out.")] = None


class CatchUpBody(Body):
    """What happens with ticks that passed while nothing could start."""

    policy: Literal["None", "Last", "All"] = "Last"
    limit: Annotated[int, Field(ge=1, le=1000, description="With All, the most ticks that run.")] = 100


class PassBody(Body):
    """Names of the keyword arguments that get a run's times, as RFC 3339 in UTC."""

    scheduled_time: Argument | None = None
    previous_time: Argument | None = None
    next_time: Argument | None = None


class BackfillBody(Body):
    """Runs for the ticks of `[from, to)`, by the timing that the schedule has today."""

    model_config = examples({"name": "january", "from": "2026-01-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"})

    name: BackfillName
    from_: Annotated[Time, Field(alias="from")]
    to: Time
    parallelism: Annotated[int, Field(ge=1, le=100)] = 1
    order: Literal["OldestFirst", "NewestFirst"] = "OldestFirst"

    @model_validator(mode="after")
    def _goes_forward(self) -> BackfillBody:
        if self.to <= self.from_:
            raise ValueError("expected `to` after `from`")
        return self


class TemplateMetadataBody(Body):
    """Metadata of the Tasks."""

    labels: TemplateLabels = {}
    annotations: Annotated[dict[str, Annotation], Field(max_length=MAX_TEMPLATE_METADATA)] = {}


class TaskTemplateBody(Body):
    """The Tasks that the schedule creates."""

    metadata: TemplateMetadataBody | None = None
    spec: TemplateSpecBody


class ScheduleSpecBody(Body):
    """The specification of a TaskSchedule."""

    schedules: Lines | None = None
    every: EveryBody | None = None
    time_zone: TimeZone = "Etc/UTC"
    start_time: Time | None = None
    end_time: Time | None = None
    concurrency_policy: ConcurrencyPolicy = "Forbid"
    catch_up: CatchUpBody = CatchUpBody()
    starting_deadline_seconds: Deadline = None
    jitter_seconds: Jitter = 0
    suspend: bool = False
    pass_: Annotated[PassBody | None, Field(alias="pass")] = None
    backfills: Annotated[list[BackfillBody], Field(max_length=MAX_BACKFILLS)] = []
    successful_history_limit: HistoryLimit = 3
    failed_history_limit: HistoryLimit = 3
    task_template: TaskTemplateBody

    @model_validator(mode="after")
    def _one_timing(self) -> ScheduleSpecBody:
        if (self.schedules is None) == (self.every is None):
            raise ValueError("exactly one of schedules and every has to be set")
        return self

    def as_json(self) -> dict[str, Any]:
        """For the manifest. Fields that the caller left out are left to the defaults of the API server."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


_NIGHTLY: dict[str, JsonValue] = {
    "schedules": ["30 2 * * *"],
    "timeZone": "Europe/Berlin",
    "taskTemplate": {"spec": {"handler": "reports.nightly", "queue": "reports"}},
}


class ScheduleBody(Body):
    """A TaskSchedule to create."""

    model_config = examples(
        {"name": "nightly", "spec": _NIGHTLY},
        {
            "name": "poll",
            "labels": {"team": "a"},
            "spec": {
                "every": {"seconds": 600},
                "concurrencyPolicy": "Queue",
                "pass": {"scheduledTime": "until", "previousTime": "since"},
                "taskTemplate": {"spec": {"handler": "feeds.poll"}},
            },
        },
    )

    name: ScheduleName
    labels: Labels = {}
    spec: ScheduleSpecBody


class PreviewBody(Body):
    """The timing of a TaskSchedule that need not exist."""

    model_config = examples({"name": "nightly", "spec": {"schedules": ["H 2 * * *"], "timeZone": "Europe/Berlin"}})

    name: Annotated[ScheduleName, Field(description="`H` depends on it.")] = "preview"
    spec: TimingBody


class TimingBody(Body):
    """The fields of a specification that say when the ticks are."""

    schedules: Lines | None = None
    every: EveryBody | None = None
    time_zone: TimeZone = "Etc/UTC"
    start_time: Time | None = None
    end_time: Time | None = None

    @model_validator(mode="after")
    def _one_timing(self) -> TimingBody:
        if (self.schedules is None) == (self.every is None):
            raise ValueError("exactly one of schedules and every has to be set")
        return self


class TemplateMetadataChange(Body):
    """A merge patch of the metadata of the Tasks."""

    labels: Annotated[dict[str, str | None], Field(max_length=MAX_TEMPLATE_METADATA)] = {}
    annotations: Annotated[dict[str, Annotation | None], Field(max_length=MAX_TEMPLATE_METADATA)] = {}


class TaskTemplateChange(Body):
    """A merge patch of the template."""

    metadata: TemplateMetadataChange = TemplateMetadataChange()
    spec: Annotated[
        dict[str, Any],
        Field(max_length=64, description="A merge patch of the specification of the Tasks. Null removes a field."),
    ] = {}


class ScheduleSpecChange(Body):
    """The fields of a schedule that can change: all. Null sets the default. Lists are replaced as a whole."""

    schedules: Lines | None = None
    every: EveryBody | None = None
    time_zone: TimeZone | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    concurrency_policy: ConcurrencyPolicy | None = None
    catch_up: CatchUpBody | None = None
    starting_deadline_seconds: Deadline = None
    jitter_seconds: Jitter | None = None
    suspend: bool | None = None
    pass_: Annotated[PassBody | None, Field(alias="pass")] = None
    backfills: Annotated[list[BackfillBody] | None, Field(max_length=MAX_BACKFILLS)] = None
    successful_history_limit: HistoryLimit | None = None
    failed_history_limit: HistoryLimit | None = None
    task_template: TaskTemplateChange = TaskTemplateChange()

    @model_validator(mode="after")
    def _not_empty(self) -> ScheduleSpecChange:
        if not self.model_fields_set:
            raise ValueError("expected at least one field")
        return self


class ScheduleChangeBody(Body):
    """A JSON merge patch (RFC 7396) of a TaskSchedule."""

    model_config = examples(
        {"spec": {"schedules": ["0 4 * * *"]}}, {"spec": {"taskTemplate": {"spec": {"priority": 9}}}}
    )

    spec: ScheduleSpecChange
