"""What the history keeps of a schedule and its ticks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from taskflow_core.domain.taskschedule import TaskSchedule, TaskScheduleStatus
from taskflow_core.store.schedules import RunOutcome, RunRow, ScheduleRow
from taskflow_operator.schedules.known import Existing
from taskflow_operator.schedules.rules.runs import Run, Skipped, Unrun

_OUTCOMES = {Unrun.SKIPPED: RunOutcome.SKIPPED, Unrun.MISSED: RunOutcome.MISSED}


def schedule_row(schedule: TaskSchedule) -> ScheduleRow:
    """The schedule, as its resource stands."""
    return ScheduleRow(
        uid=schedule.uid,
        namespace=schedule.namespace,
        name=schedule.name,
        generation=schedule.generation,
        spec=schedule.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        cursor=schedule.status.cursor,
        created_at=schedule.created,
    )


def created_row(schedule: TaskSchedule, run: Run, uid: str, now: datetime) -> RunRow:
    """A run that became a Task."""
    return RunRow(
        schedule_uid=schedule.uid,
        namespace=schedule.namespace,
        schedule=schedule.name,
        tick=run.tick,
        token=run.token,
        backfill=run.backfill,
        outcome=RunOutcome.CREATED,
        task_uid=uid,
        task_name=run.name,
        decided_at=now,
    )


def unrun_row(schedule: TaskSchedule, skipped: Skipped, now: datetime) -> RunRow:
    """A tick that became none."""
    return RunRow(
        schedule_uid=schedule.uid,
        namespace=schedule.namespace,
        schedule=schedule.name,
        tick=skipped.tick,
        outcome=_OUTCOMES[skipped.outcome],
        reason=skipped.reason.value,
        decided_at=now,
    )


def found_rows(
    schedule: TaskSchedule, status: TaskScheduleStatus, existing: Iterable[Existing], now: datetime
) -> list[RunRow]:
    """Runs that the next status shows for the first time, among Tasks that exist: an operator may have created them
    that died before it could say so.
    """
    before = {each.name: set(each.running) for each in schedule.status.backfills}
    after = {each.name: set(each.running) for each in status.backfills}
    since = schedule.status.cursor or schedule.created
    rows = []
    for each in existing:
        child = each.child
        if child.tick is None:
            continue
        if child.backfill:
            new = child.tick in after.get(child.backfill, set()) - before.get(child.backfill, set())
        else:
            new = status.cursor is not None and since < child.tick <= status.cursor
        if new:
            run = Run(child.name, child.tick, child.tick, None, None, backfill=child.backfill)
            rows.append(created_row(schedule, run, each.uid, now))
    return rows
