"""Assembles the controller of WorkerPools and the scaler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from taskflow_core.ledger.presence import PoolView
from taskflow_operator.arrays.controller import ArrayController
from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.part import Part
from taskflow_operator.assembly.tasks import TaskCore
from taskflow_operator.kopf_handlers import lifecycle
from taskflow_operator.kopf_handlers.runner import KopfRunner
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.pools.demand import DemandView
from taskflow_operator.pools.metrics import PoolMetrics
from taskflow_operator.pools.scaler import Scaler
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.pools.worker_slots import WorkerSlots
from taskflow_operator.process.leader_election import LEASE_NAME
from taskflow_operator.tasks.queue_metrics import QueueMetrics, QueueSeries


@dataclass(frozen=True)
class PoolFeature:
    """WorkerPools."""

    part: Part
    controller: PoolController
    kopf: KopfRunner

    @classmethod
    def build(
        cls, base: Foundation, core: TaskCore, served: ServedQueues, slots: WorkerSlots, arrays: ArrayController
    ) -> Self:
        """Build it."""
        controller = PoolController(
            base.kube,
            served,
            image=base.settings.worker_image,
            lease_seconds=base.settings.lease_seconds,
            lease_name=f"{base.settings.leader_namespace}/{LEASE_NAME}",
            env={"TASKFLOW_LOG_LEVEL": base.logs.level, "TASKFLOW_LOG_FORMAT": base.logs.format},
            changed=core.pool_changes.changed,
            events=base.events,
        )
        demand = DemandView(core.tasks, core.work_queue, arrays.demand)
        scaler = Scaler(controller, base.kube, PoolView(base.redis), demand, core.demand, slots)
        kopf = KopfRunner(lifecycle.watch(controller, base.settings))
        queues = QueueMetrics(core.tasks, controller.served)
        part = Part(
            {"pools": controller.run, "scaling": scaler.run, "kopf": kopf.run, "gauges": QueueSeries(queues).run},
            collectors=(queues, PoolMetrics(controller.pools)),
        )
        return cls(part, controller, kopf)
