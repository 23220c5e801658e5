"""Metrics of TaskSchedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from taskflow_core.domain.taskschedule import TaskSchedule
from taskflow_core.telemetry import metrics
from taskflow_operator.schedules.known import KnownSchedules

LATE_SECONDS = 10.0
MOST = 1000
"""Schedules that have series of their own: only what is wrong has, and never more."""


class ScheduleMetrics(Collector):
    """What is due in each namespace, and which schedules are late or stalled.

    Args:
        known: the schedules.
        now: the time.
    """

    def __init__(self, known: KnownSchedules, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._known = known
        self._now = now

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges of `/metrics`."""
        next_tick, late, stalled = (
            GaugeMetricFamily(name, help_text, labels=labels)
            for name, help_text, labels in (metrics.SCHEDULE_NEXT, metrics.SCHEDULE_LATE, metrics.SCHEDULE_STALLED)
        )
        now, earliest = self._now(), dict[str, datetime]()
        behind: list[tuple[float, str, str]] = []
        stuck: list[tuple[str, str, str]] = []
        for known in self._known:
            schedule = known.schedule
            if reason := _stalled(schedule):
                stuck.append((schedule.namespace, schedule.name, reason))
                continue
            upcoming = schedule.status.next_schedule_time
            if schedule.spec.suspend or (upcoming is None and not known.overdue):
                continue
            jitter = timedelta(seconds=schedule.spec.jitter_seconds)
            due = min([*known.overdue.values(), *([] if upcoming is None else [upcoming + jitter])])
            earliest[schedule.namespace] = min(earliest.get(schedule.namespace, due), due)
            seconds = (now - due).total_seconds()
            if seconds > LATE_SECONDS:
                behind.append((seconds, schedule.namespace, schedule.name))
        for namespace, tick in sorted(earliest.items()):
            next_tick.add_metric([namespace], tick.timestamp())
        for seconds, namespace, name in sorted(behind, reverse=True)[:MOST]:
            late.add_metric([namespace, name], seconds)
        for labels in sorted(stuck)[:MOST]:
            stalled.add_metric(labels, 1)
        return [next_tick, late, stalled]


def _stalled(schedule: TaskSchedule) -> str:
    condition = schedule.status.condition("Stalled")
    return condition.reason if condition is not None and condition.status == "True" else ""
