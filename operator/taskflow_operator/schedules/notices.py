"""Kubernetes Events about TaskSchedules, one for many ticks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from taskflow_core.domain.taskschedule import KIND, TaskSchedule, TaskScheduleStatus
from taskflow_operator.runtime.event_recorder import EventRecorder, Regarding
from taskflow_operator.schedules.rules.runs import Skipped, Unrun

PAUSE_SECONDS = 600.0
"""Between two Events about ticks of a schedule that did not run for the same reason; those between are counted."""
CONDITIONS = {"Stalled": "True", "NameTaken": "True", "Ready": "False"}
"""Conditions that are worth an Event, and the status that is."""


@dataclass(slots=True)
class _Told:
    at: float
    since: int = 0
    """Ticks since then."""


class ScheduleNotices:
    """Tells of schedules that cannot run, and of ticks that did not run.

    Args:
        events: posts Events.
        clock: monotonic seconds.
    """

    def __init__(self, events: EventRecorder, clock: Callable[[], float] = time.monotonic) -> None:
        self._events = events
        self._clock = clock
        self._told: dict[tuple[str, str], _Told] = {}

    def status_changed(self, before: TaskSchedule, after: TaskScheduleStatus) -> None:
        """The status of a schedule was written."""
        for new in after.conditions:
            former = before.status.condition(new.type)
            same = former is not None and (former.status, former.reason) == (new.status, new.reason)
            if not same and CONDITIONS.get(new.type) == new.status and new.reason not in _QUIET:
                self._events.warn(_regarding(before), new.reason, new.message, action="Schedule")

    def did_not_run(self, schedule: TaskSchedule, ticks: Sequence[Skipped]) -> None:
        """These ticks became no Tasks."""
        counts = Counter((each.outcome, each.reason) for each in ticks)
        for (outcome, reason), count in counts.items():
            latest = max(each.tick for each in ticks if each.reason is reason)
            self._count(schedule, outcome, reason.value, count, latest)

    def forget(self, uid: str) -> None:
        """The schedule is gone."""
        for key in [key for key in self._told if key[0] == uid]:
            del self._told[key]

    def _count(self, schedule: TaskSchedule, outcome: Unrun, reason: str, count: int, latest: datetime) -> None:
        now, key = self._clock(), (schedule.uid, reason)
        told = self._told.get(key)
        if told is not None and now - told.at < PAUSE_SECONDS:
            told.since += count
            return
        total = count + (0 if told is None else told.since)
        self._told[key] = _Told(now)
        runs = "1 run was" if total == 1 else f"{total} runs were"
        note = f"{runs} {outcome.value} ({reason}), the latest that of {latest:%Y-%m-%dT%H:%M:%SZ}"
        event = "RunSkipped" if outcome is Unrun.SKIPPED else "RunMissed"
        self._events.warn(_regarding(schedule), event, note, action="Schedule")


_QUIET = frozenset({"Suspended", "Ended", "HistoryUnavailable"})
"""Reasons that the user wants, and one that is the same for all schedules and has an alert."""


def _regarding(schedule: TaskSchedule) -> Regarding:
    return Regarding(KIND, schedule.namespace, schedule.name, schedule.uid)
