"""Which Tasks of a schedule have to stay."""

from __future__ import annotations

from datetime import datetime

from taskflow_core.domain.task import Task
from taskflow_core.domain.taskschedule import BackfillOrder, BackfillStatus, TaskSchedule
from taskflow_operator.schedules.rules.status import SUSPENDED, token_digest


def is_needed(schedule: TaskSchedule, task: Task) -> bool:
    """Whether the status of the schedule does not yet say that this Task of it exists, or how it ended: it is the only
    proof that its tick ran.
    """
    run = task.scheduled
    if run is None:
        return False
    if run.run_now:
        return schedule.run_now == run.run_now and token_digest(run.run_now) != schedule.status.run_now
    if run.tick is None:
        return False
    return _backfill_needs(schedule, run.backfill, run.tick) if run.backfill else _timing_needs(schedule, run.tick)


def _timing_needs(schedule: TaskSchedule, tick: datetime) -> bool:
    suspended = schedule.status.condition(SUSPENDED)
    if suspended is not None and suspended.status == "True":
        # When it is resumed, the cursor is beyond everything that there is.
        return False
    return tick > (schedule.status.cursor or schedule.created)


def _backfill_needs(schedule: TaskSchedule, name: str, tick: datetime) -> bool:
    wanted = next((each for each in schedule.spec.backfills if each.name == name), None)
    status = next((each for each in schedule.status.backfills if each.name == name), None)
    if wanted is None:
        return False
    return status is None or tick in status.running or _is_beyond(tick, status, wanted.order)


def _is_beyond(tick: datetime, status: BackfillStatus, order: BackfillOrder) -> bool:
    if status.complete:
        return False
    if status.cursor is None:
        return True
    return tick > status.cursor if order is BackfillOrder.OLDEST_FIRST else tick < status.cursor
