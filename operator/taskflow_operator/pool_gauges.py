from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from taskflow_core.domain.phases import Phase
from taskflow_core.telemetry import metrics
from taskflow_operator.memory import OpenTasks
from taskflow_operator.pools import PoolSize, pool_of_worker


class PoolGauges(Collector):
    """Workers of each pool and what they are doing, computed when they are asked for; a pool that is gone is not told of.

    Args:
        tasks: the open Tasks.
        pools: all pools, by namespace and name.
    """

    def __init__(self, tasks: OpenTasks, pools: Mapping[tuple[str, str], PoolSize]) -> None:
        self._tasks = tasks
        self._pools = pools

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What `/metrics` shows."""
        replicas, slots, busy = (
            GaugeMetricFamily(name, words, labels=labels)
            for name, words, labels in (metrics.POOL_REPLICAS, metrics.POOL_SLOTS, metrics.POOL_BUSY)
        )
        workers: Counter[tuple[str, str]] = Counter()
        for known in self._tasks:
            if known.task.status.phase is Phase.RUNNING:
                workers[known.task.namespace, known.task.status.worker or ""] += 1
        running: Counter[tuple[str, str | None]] = Counter()
        for (namespace, worker), count in workers.items():
            pools = [pool for place, pool in self._pools if place == namespace]
            running[namespace, pool_of_worker(worker, pools)] += count
        for (namespace, pool), size in sorted(self._pools.items(), key=lambda item: item[0]):
            replicas.add_metric([namespace, pool, "desired"], size.desired)
            replicas.add_metric([namespace, pool, "ready"], size.ready)
            slots.add_metric([namespace, pool], size.ready * size.concurrency)
            busy.add_metric([namespace, pool], running[namespace, pool])
        return [replicas, slots, busy]
