from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from taskflow_core.telemetry import metrics
from taskflow_operator.pools.controller import PoolState


class PoolMetrics(Collector):
    """Workers of each pool, what they do and what they are wanted for; a pool that is gone is not told of.

    Args:
        pools: all pools, by namespace and name.
    """

    def __init__(self, pools: Mapping[tuple[str, str], PoolState]) -> None:
        self._pools = pools

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What `/metrics` shows."""
        replicas, slots, busy, demand = (
            GaugeMetricFamily(name, words, labels=labels)
            for name, words, labels in (
                metrics.POOL_REPLICAS, metrics.POOL_SLOTS, metrics.POOL_BUSY, metrics.POOL_DEMAND,
            )
        )  # fmt: skip
        for (namespace, name), kept in sorted(self._pools.items(), key=lambda item: item[0]):
            figures = kept.found.figures
            replicas.add_metric([namespace, name, "desired"], kept.status.get("desiredReplicas", 0))
            replicas.add_metric([namespace, name, "ready"], kept.status.get("readyReplicas", 0))
            slots.add_metric([namespace, name], figures.slots)
            busy.add_metric([namespace, name], figures.busy)
            demand.add_metric([namespace, name], figures.demand.slots)
        return [replicas, slots, busy, demand]
