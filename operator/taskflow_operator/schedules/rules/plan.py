"""What to do with a TaskSchedule now: one pure decision over its specification, its status, and its Tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from taskflow_core.domain.taskschedule import TaskSchedule
from taskflow_operator.schedules.rules.runs import Child, Plan, Refusal


def plan(
    schedule: TaskSchedule,
    children: Collection[Child],
    now: datetime,
    refused: Mapping[str, Refusal] | None = None,
) -> Plan:
    """What to do with a TaskSchedule.

    Its effects have an order: first `runs` are created, then `status` is written, with a test of the schedule's uid
    and resourceVersion. Whoever dies between is followed by one that plans the same runs, with the same names.

    Args:
        schedule: as last read.
        children: its Tasks, also those that were created a moment ago, and those that the history knows instead.
        now: the time.
        refused: by name, runs that cannot be created at the moment.
    """
    raise NotImplementedError
