"""The controller of Tasks over fakes, connected as `assembly` connects it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Self, cast

from taskflow_core.domain.events import EntryId, Event
from taskflow_core.domain.task import Isolation, Task, TaskStatus
from taskflow_core.telemetry.tracing import NoTracing
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.runtime.acknowledgements import Acknowledgements
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.delivery import Delivery
from taskflow_operator.tasks.dispatcher import Dispatcher, PoolChanges
from taskflow_operator.tasks.event_consumer import EventConsumer
from taskflow_operator.tasks.finished import Finished
from taskflow_operator.tasks.message_queue import MessageQueue, WarmWorkers
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.past_runs import PastRuns
from taskflow_operator.tasks.settlement import Settlement
from taskflow_operator.tasks.status import TaskStatuses
from taskflow_operator.tasks.work_queue import WorkQueue
from tests.builders import NOW, TOKEN_KEY
from tests.unit.taskflow_operator.fakes import (
    FakeApi,
    FakeArrays,
    FakeDependencies,
    FakeLauncher,
    FakeLedger,
    FakeOrphanedEnds,
    FakePublisher,
    FakeReader,
    FakeRuns,
    Journal,
)


class Parts:
    """Dispatcher, delivery, closer, writer and the `cr` group over fakes. `async with` runs the loops of writer and
    dispatcher.
    """

    def __init__(self, *, quiet: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.journal = Journal()
        self.now = NOW
        self.tasks, self.pools = OpenTasks(), ServedQueues()
        self.ledger, self.publisher = FakeLedger(self.journal), FakePublisher(self.journal)
        self.api, self.reader = FakeApi(self.journal), FakeReader()
        self.orphaned = FakeOrphanedEnds()
        self.finished: list[Task] = []
        self.writer = StatusWriter(self.api, 10_000, clock)
        self.work_queue = WorkQueue(now=lambda: self.now, namespace_of=self.tasks.namespace_of)
        finished = Finished()
        finished.subscribe(self.finished.append)
        self.statuses = TaskStatuses(self.tasks, self.writer, quiet)
        self.closer = Closer(self.tasks, self.writer, Settlement(self.ledger), self.work_queue.add_at, finished)
        self.dependencies, self.launcher = FakeDependencies(), FakeLauncher(self.journal)
        self.runs = FakeRuns()
        self.arrays = FakeArrays(self.tasks)
        self.queue = MessageQueue(self.publisher, lambda: None)
        self.times = AttemptTimes(NoTracing())
        self.delivery = Delivery(
            self.tasks,
            self.work_queue,
            self.pools,
            self.ledger,
            self.queue,
            {Isolation.WORKER: WarmWorkers(self.queue, self.pools, TOKEN_KEY), Isolation.POD: self.launcher},
            self.statuses,
            self.closer,
            self.times,
            now=lambda: self.now,
        )
        self.dispatcher = Dispatcher(
            self.tasks,
            self.work_queue,
            self.pools,
            self.dependencies,
            PastRuns(self.tasks, self.runs, now=lambda: self.now),
            self.delivery,
            self.arrays,
            now=lambda: self.now,
        )
        self.pool_changes = PoolChanges(self.tasks, self.work_queue)
        self.acknowledgements = Acknowledgements(self.reader)
        self.resources = EventConsumer(
            self.tasks,
            self.statuses,
            self.closer,
            self.arrays,
            cast("Any", self.orphaned),
            self.pools,
            self.times,
            self.acknowledgements,
            dispatch_at=self.work_queue.add_at,
            max_lost_workers=3,
            now=lambda: self.now,
        )
        self._jobs: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._jobs = [asyncio.create_task(loop) for loop in (self.writer.run(), self.dispatcher.run())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._jobs:
            job.cancel()
        results = await asyncio.gather(*self._jobs, return_exceptions=True)
        await self.writer.drain(1)
        self.queue.close()
        assert [each for each in results if not isinstance(each, asyncio.CancelledError)] == [], (
            "a loop ended by itself"
        )

    def serve(self, *queues: str, namespace: str = "team-a") -> None:
        if self.pools.put(namespace, "main", frozenset(queues)):
            self.pool_changes.changed(namespace)

    def add(self, task: Task) -> Task:
        assert self.tasks.add(task)
        return task

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def status(self, uid: str) -> TaskStatus:
        known = self.tasks.get(uid)
        assert known is not None
        return known.task.status

    async def take(self, *events: Event) -> None:
        await self.resources.take(events, ())

    async def done(self) -> list[str]:
        """Stream ids of what may be acknowledged by now."""
        return [entry.id for entry in await self.done_entries()]

    async def done_entries(self) -> list[EntryId]:
        """What may be acknowledged by now."""
        await self.acknowledgements.flush()
        return self.reader.acknowledged
