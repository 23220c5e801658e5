"""The views of TaskSchedules and their runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from taskflow_api.tasks.views import TaskView
from taskflow_core.domain.resource import Condition, Model
from taskflow_core.domain.taskschedule import BackfillStatus, LastOutcome, TaskSchedule
from taskflow_core.store.schedules import ListedRun, RunOutcome


class ScheduleView(Model):
    """A TaskSchedule, its spec and its status."""

    name: str
    namespace: str
    uid: str
    created_at: datetime
    generation: int
    observed_generation: int
    """The generation that the status is about."""
    labels: dict[str, str]
    spec: dict[str, Any]
    """As on the resource."""
    suspended: bool
    last_schedule_time: datetime | None
    """The latest tick that became a Task."""
    last_task_name: str | None
    last_outcome: LastOutcome | None
    next_schedule_time: datetime | None
    """Null while the schedule is suspended or cannot run, and after its end."""
    next_schedule_times: list[datetime]
    """The next three."""
    resolved_schedules: list[str]
    """`spec.schedules` with numbers in the place of `H`."""
    active: list[str]
    """Tasks that have not ended, at most ten."""
    active_count: int
    waiting: datetime | None
    """A tick that waits for the end of an earlier run."""
    catching_up_until: datetime | None
    """The newest tick of a backlog that is being caught up."""
    skipped: int
    missed: int
    """Ticks that were missed; at least so many."""
    backfills: list[BackfillStatus]
    conditions: list[Condition]
    reason: str
    """The reason of the Ready condition."""
    message: str


def schedule_view(body: dict[str, Any]) -> ScheduleView:
    """The view of a TaskSchedule resource."""
    schedule, meta = TaskSchedule.from_object(body), body["metadata"]
    status, ready = schedule.status, schedule.status.condition("Ready")
    return ScheduleView(
        name=schedule.name,
        namespace=schedule.namespace,
        uid=schedule.uid,
        created_at=schedule.created,
        generation=schedule.generation,
        observed_generation=status.observed_generation,
        labels=meta.get("labels") or {},
        spec=body["spec"],
        suspended=schedule.spec.suspend,
        last_schedule_time=status.last_schedule_time,
        last_task_name=status.last_task_name or None,
        last_outcome=status.last_outcome,
        next_schedule_time=status.next_schedule_time,
        next_schedule_times=list(status.next_schedule_times),
        resolved_schedules=list(status.resolved_schedules),
        active=list(status.active),
        active_count=status.active_count,
        waiting=status.waiting,
        catching_up_until=status.catching_up_until,
        skipped=status.skipped,
        missed=status.missed,
        backfills=list(status.backfills),
        conditions=list(status.conditions),
        reason=ready.reason if ready else "",
        message=ready.message if ready else "",
    )


class SchedulePage(Model):
    """A page of the schedules of a namespace, by name."""

    items: list[ScheduleView]
    next_cursor: str | None
    """Send it as `cursor` for the next page; null at the end. It is valid for a few minutes."""


class RunView(Model):
    """What became of a tick."""

    scheduled_time: datetime
    """The tick; for a run that was asked for by hand, when it was asked for."""
    outcome: RunOutcome
    reason: str
    """Why it was skipped or missed."""
    message: str
    manual: bool
    """It was asked for by hand."""
    backfill: str | None
    """The backfill that it belongs to."""
    decided_at: datetime
    task_name: str | None
    task_uid: str | None
    phase: str | None
    """Of the Task; null while the history does not know it."""
    started_at: datetime | None
    finished_at: datetime | None


def run_view(listed: ListedRun) -> RunView:
    """The view of a run."""
    run = listed.run
    return RunView(
        scheduled_time=run.tick,
        outcome=run.outcome,
        reason=run.reason,
        message=run.message,
        manual=bool(run.token),
        backfill=run.backfill or None,
        decided_at=run.decided_at,
        task_name=run.task_name,
        task_uid=run.task_uid,
        phase=listed.phase,
        started_at=listed.started_at,
        finished_at=listed.finished_at,
    )


class RunPage(Model):
    """A page of the runs of a schedule, newest tick first."""

    items: list[RunView]
    next_cursor: str | None
    """Send it as `cursor` for the next page; null at the end."""


class TickView(Model):
    """A future tick."""

    scheduled_time: datetime
    local_time: str
    """The same on the clocks of the time zone, as RFC 3339."""


class NextView(Model):
    """The next ticks of a timing."""

    items: list[TickView]
    """Fewer than asked for, if the timing has an end."""
    time_zone: str
    resolved_schedules: list[str]
    """The lines with numbers in the place of `H`."""
    suspended: bool
    """Whether the schedule is suspended, so that none of them runs."""


class RunNowView(Model):
    """A run that was asked for."""

    task_name: str
    task: TaskView | None
    """Null if the run waits for the end of an earlier one, and the operator creates the Task then."""
