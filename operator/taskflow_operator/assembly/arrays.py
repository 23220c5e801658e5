"""Assembles the controller of arrays."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Self

from taskflow_core.ledger.arrays import ArrayLedger
from taskflow_operator.arrays.chunk_delivery import ChunkDelivery
from taskflow_operator.arrays.controller import ArrayController
from taskflow_operator.arrays.driver import ArrayServices
from taskflow_operator.arrays.item_writer import ItemWriter
from taskflow_operator.assembly.foundation import Foundation
from taskflow_operator.assembly.part import Part
from taskflow_operator.assembly.tasks import TaskCore
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.pools.worker_slots import WorkerSlots


@dataclass(frozen=True)
class ArrayFeature:
    """Arrays."""

    part: Part
    controller: ArrayController

    @classmethod
    def build(cls, base: Foundation, core: TaskCore, served: ServedQueues, slots: WorkerSlots) -> Self:
        """Build it."""
        now = partial(datetime.now, UTC)
        items = ItemWriter(base.database)
        services = ArrayServices(
            tasks=core.tasks,
            delivery=ChunkDelivery(
                base.ledger,
                ArrayLedger(base.redis, base.namespaces),
                core.queue,
                token_key=base.token_key,
                now=now,
            ),
            items=items,
            statuses=core.statuses,
            closer=core.closer,
            pools=served,
            slots=slots.of,
            dispatch_at=core.work_queue.add_at,
            max_lost_workers=base.settings.max_lost_workers,
            now=now,
        )
        controller = ArrayController(services, items, core.acknowledgements.add)
        core.finished.subscribe(controller.task_finished)
        return cls(Part({"arrays": controller.run}), controller)
