"""What to do for the backfills of a schedule."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from taskflow_core.domain.calendar import Calendar
from taskflow_core.domain.manifests import run_name
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.taskschedule import Backfill, BackfillOrder, BackfillStatus, TaskSchedule
from taskflow_operator.schedules.rules.runs import Child

MOST_SEEN = 1000
"""Ticks of a backfill that one decision looks at."""
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What to do for one backfill."""

    status: BackfillStatus
    ticks: tuple[datetime, ...] = ()
    """To be run, in this order."""
    stopped: str = ""
    """Name of a run that cannot be created at the moment."""
    again: bool = False
    """There was more to look at than one decision takes."""


def plan_backfill(
    schedule: TaskSchedule,
    backfill: Backfill,
    calendar: Calendar,
    cursor: datetime,
    children: Mapping[str, Child],
    held: frozenset[str],
) -> BackfillPlan:
    """What to do for a backfill now.

    Ticks after the cursor of the schedule are not its own: the schedule decides on them.

    Args:
        schedule: whose backfill it is.
        backfill: its specification.
        calendar: ticks of the schedule.
        cursor: of the schedule.
        children: by name, Tasks of the schedule.
        held: names that cannot be created at the moment.
    """
    former = next((each for each in schedule.status.backfills if each.name == backfill.name), None)
    status = former or BackfillStatus(name=backfill.name)
    if status.complete:
        return BackfillPlan(status)
    running, failed = _still_running(schedule, status, children)
    position, created, ticks, seen = status.cursor, status.created, list[datetime](), 0
    exhausted, stopped = True, ""
    for tick in _ticks(backfill, calendar, status.cursor, cursor):
        child = children.get(name := run_name(schedule.name, tick))
        if child is None and (len(running) >= backfill.parallelism or name in held):
            exhausted = False
            stopped = name if name in held else ""
            break
        if seen == MOST_SEEN:
            exhausted = False
            break
        seen, position = seen + 1, tick
        if child is None:
            ticks.append(tick)
        if child is None or child.backfill == backfill.name:
            created += 1
            failed += int(child is not None and _failed(child))
            if child is None or child.open:
                running.append(tick)
    changed = {
        "cursor": position,
        "created": created,
        "failed": failed,
        "running": tuple(running),
        "complete": exhausted and not running,
    }
    return BackfillPlan(status.model_copy(update=changed), tuple(ticks), stopped, again=seen == MOST_SEEN)


def _still_running(
    schedule: TaskSchedule, status: BackfillStatus, children: Mapping[str, Child]
) -> tuple[list[datetime], int]:
    """Ticks of the runs that have not ended, and how many have failed by now."""
    running, failed = [], status.failed
    for tick in status.running:
        child = children.get(run_name(schedule.name, tick))
        if child is not None and child.open:
            running.append(tick)
        elif child is not None:
            failed += int(_failed(child))
    return running, failed


def _failed(child: Child) -> bool:
    return not child.open and child.phase is not Phase.SUCCEEDED


def _ticks(backfill: Backfill, calendar: Calendar, position: datetime | None, cursor: datetime) -> Iterator[datetime]:
    """The ticks that it has not decided on, in its order."""
    if backfill.order is BackfillOrder.OLDEST_FIRST:
        ticks = calendar.after(position or backfill.from_ - MICROSECOND)
        return itertools.takewhile(lambda tick: tick < backfill.to and tick <= cursor, ticks)
    newest = min(backfill.to - MICROSECOND, cursor) if position is None else position - MICROSECOND
    return itertools.takewhile(lambda tick: tick >= backfill.from_, calendar.until(newest))
