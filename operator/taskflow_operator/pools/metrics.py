"""Metrics of WorkerPools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from taskflow_core.telemetry import metrics
from taskflow_operator.pools.controller import PoolState


class PoolMetrics(Collector):
    """Workers, slots and demand of each pool; a pool that is gone is left out.

    Args:
        pools: all pools, by namespace and name.
    """

    def __init__(self, pools: Mapping[tuple[str, str], PoolState]) -> None:
        self._pools = pools

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges of `/metrics`."""
        replicas, slots, busy, demand = (
            GaugeMetricFamily(name, help_text, labels=labels)
            for name, help_text, labels in (
                metrics.POOL_REPLICAS,
                metrics.POOL_SLOTS,
                metrics.POOL_BUSY,
                metrics.POOL_DEMAND,
            )
        )
        for (namespace, name), state in sorted(self._pools.items(), key=lambda item: item[0]):
            figures = state.found.figures
            replicas.add_metric([namespace, name, "desired"], state.status.get("desiredReplicas", 0))
            replicas.add_metric([namespace, name, "ready"], state.status.get("readyReplicas", 0))
            slots.add_metric([namespace, name], figures.slots)
            busy.add_metric([namespace, name], figures.busy)
            demand.add_metric([namespace, name], figures.demand.slots)
        return [replicas, slots, busy, demand]
