"""What a decision about a TaskSchedule is made of, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.domain.taskschedule import TaskScheduleStatus


@dataclass(frozen=True, slots=True)
class Child:
    """A Task that is a run of the schedule: one that exists, or one that the history knows."""

    name: str
    created: datetime
    tick: datetime | None
    """None for a run that was asked for by a token or through REST."""
    phase: Phase | None = None
    """None while the Task has no status."""
    cancelled: bool = False
    """It was asked to end."""
    backfill: str = ""
    """The backfill that created it; empty if none did."""

    @property
    def open(self) -> bool:
        """It has not ended."""
        return self.phase is None or not self.phase.terminal

    @classmethod
    def of(cls, task: Task) -> Child:
        """The child that this Task is."""
        run = task.scheduled
        return cls(
            name=task.name,
            created=task.created,
            tick=None if run is None else run.tick,
            phase=task.status.phase,
            cancelled=task.cancelled,
            backfill="" if run is None else run.backfill,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A Task to create."""

    name: str
    tick: datetime
    """For a run by a token, the time at which it was decided on."""
    release: datetime
    """When it was to be created: the tick and its jitter. Its delay counts from here."""
    previous: datetime | None
    """The tick before, for `spec.pass`."""
    next: datetime | None
    """The tick after, likewise."""
    backfill: str = ""
    """Name of the backfill that it belongs to."""
    token: str = ""
    """Value of the annotation `taskflow.dev/run-now` that asked for it."""


class Unrun(StrEnum):
    """What became of a tick that did not become a Task."""

    SKIPPED = "skipped"
    """The schedule was at work, and its concurrency policy or its suspension said no."""
    MISSED = "missed"
    """Nothing could be started in time."""


class UnrunReason(StrEnum):
    """Why a tick did not become a Task."""

    STILL_RUNNING = "StillRunning"
    """An earlier run was not finished, and `concurrencyPolicy` is Forbid."""
    REPLACED = "Replaced"
    """A newer tick took its place while it waited for the end of an earlier run."""
    SUSPENDED = "Suspended"
    """It waited for the end of an earlier run when the schedule was suspended."""
    CATCH_UP = "CatchUp"
    """It passed while nothing could be started, and `catchUp` does not include it."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """It could not be started within `startingDeadlineSeconds`."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A tick that does not become a Task."""

    tick: datetime
    outcome: Unrun
    reason: UnrunReason


class RefusalReason(StrEnum):
    """Why a Task could not be created."""

    CHILD_NAME_TAKEN = "ChildNameTaken"
    """Another Task has its name."""
    CREATE_REFUSED = "CreateRefused"
    """The API server refused it, a quota for example."""
    HISTORY_UNAVAILABLE = "HistoryUnavailable"
    """Whether it ran before is known by the history alone, which does not answer."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A run that could not be created. It is due until its deadline, and tried again."""

    reason: RefusalReason
    message: str
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with a TaskSchedule now."""

    status: TaskScheduleStatus
    """To be written after all `runs` exist; equal to the former one if nothing changed. If some could not be created,
    plan again with those that could among the children, and the others as `refused`."""
    runs: tuple[Run, ...] = ()
    """To be created first, in this order."""
    cancel: tuple[str, ...] = ()
    """Names of open children that are to be cancelled."""
    skipped: tuple[Skipped, ...] = ()
    """Ticks that do not run, oldest first; already counted in `status`."""
    wake_at: datetime | None = None
    """When to plan again; None if only a change can matter."""
    timing_changed: bool = False
    """The timing was edited since the last decision, so it holds from now on."""
