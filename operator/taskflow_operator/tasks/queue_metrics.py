"""Metrics of queues."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from taskflow_core.telemetry import metrics
from taskflow_operator.tasks.open_tasks import OpenTasks

LOOK_SECONDS = 2.0
FORGET_LOOKS = 300
"""Ten minutes without a pool and without a Task before the series of a queue are removed: scrapers saw its last
values."""


class QueueMetrics(Collector):
    """Depth and oldest age of each queue, computed when they are scraped; a queue that is gone is left out.

    Args:
        tasks: the open Tasks.
        served: (namespace, queue) of all pools, which are shown even when they are empty.
        now: the time.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        served: Callable[[], Iterable[tuple[str, str]]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tasks = tasks
        self._served = served
        self._now = now

    def queues(self) -> set[tuple[str, str]]:
        """(namespace, queue) that have a pool or a Task."""
        return {*self._served(), *self._tasks.queues.queues()}

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges of `/metrics`."""
        depth = GaugeMetricFamily(metrics.DEPTH[0], metrics.DEPTH[1], labels=metrics.DEPTH[2])
        oldest = GaugeMetricFamily(metrics.OLDEST[0], metrics.OLDEST[1], labels=metrics.OLDEST[2])
        elsewhere, now = self._tasks.oldest_elsewhere(), self._now()
        for namespace, queue in sorted(self.queues()):
            for state in ("ready", "leased", "delayed"):
                depth.add_metric([namespace, queue, state], self._tasks.queues.depth(namespace, queue, state))
            began = [
                since
                for since in (self._tasks.queues.oldest(namespace, queue), elsewhere.get((namespace, queue)))
                if since
            ]
            oldest.add_metric([namespace, queue], max((now - min(began)).total_seconds(), 0) if began else 0.0)
        return [depth, oldest]


class QueueSeries:
    """Removes the series of queues that are gone.

    Args:
        gauges: the queues.
    """

    def __init__(self, gauges: QueueMetrics) -> None:
        self._gauges = gauges
        self._unseen: Counter[str] = Counter()

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            self._forget_queues()
            await asyncio.sleep(LOOK_SECONDS)

    def _forget_queues(self) -> None:
        present = {queue for _, queue in self._gauges.queues()}
        for queue in metrics.known_queues():
            self._unseen[queue] = 0 if queue in present else self._unseen[queue] + 1
        metrics.forget_queues([queue for queue, looks in self._unseen.items() if looks < FORGET_LOOKS])
        for queue in [queue for queue, looks in self._unseen.items() if looks >= FORGET_LOOKS]:
            del self._unseen[queue]
