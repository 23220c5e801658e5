"""The composition root: builds the parts and connects them. No logic."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

import redis.asyncio

from taskflow_core.broker.publish import Publisher
from taskflow_core.domain.events import Event
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import TaskflowError
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.settings import DatabaseSettings, RedisSettings
from taskflow_core.store import repository
from taskflow_core.store.engine import create_engine, transaction
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.apply_cr import ApplyToResources
from taskflow_operator.apply_store import ApplyToStore
from taskflow_operator.closing import Closer
from taskflow_operator.dependencies import DependencyLookup
from taskflow_operator.dispatch import Dispatcher
from taskflow_operator.health import HealthServer
from taskflow_operator.memory import OpenTasks, PoolQueues
from taskflow_operator.observe import Observer
from taskflow_operator.pool_keeper import PoolKeeper
from taskflow_operator.reconcile import Reconciler
from taskflow_operator.retention import Retention
from taskflow_operator.settings import OperatorSettings
from taskflow_operator.status_writer import StatusWriter

log = get_logger(__name__)
START_RETRY_SECONDS = 2.0
DRAIN_SECONDS = 5.0
REDIS_AGE_LIMIT = 10.0


class Database:
    """The history as the mirror needs it, on an engine of its own."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._engine = create_engine(settings, application_name="taskflow-operator", pool_size=2)

    async def apply_events(self, events: Sequence[Event]) -> None:
        """Fold events into the tables, in one transaction."""
        async with transaction(self._engine) as connection:
            await repository.apply_events(connection, events)

    async def upsert_tasks(self, tasks: Sequence[Task]) -> None:
        """Mirror Tasks as they stand, in one transaction."""
        async with transaction(self._engine) as connection:
            await repository.upsert_tasks(connection, tasks)

    async def outcome(self, namespace: str, name: str) -> Phase | None:
        """Terminal phase of the latest Task of that name; None if there is none, or it never finished."""
        async with transaction(self._engine) as connection:
            row = await repository.get_task(connection, namespace, name)
        return Phase(row.phase) if row is not None and Phase(row.phase).terminal else None

    async def stored(self, uids: Sequence[str]) -> set[str]:
        """Those of the uids whose end is in the history."""
        async with transaction(self._engine) as connection:
            return await repository.finished(connection, uids)

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()


class Operator:
    """All parts of the operator, from start to stop."""

    def __init__(
        self, settings: OperatorSettings, redis_settings: RedisSettings, database: DatabaseSettings, kube: KubeClient
    ) -> None:
        self._kube = kube
        self._redis: redis.asyncio.Redis = connect_async(redis_settings)
        self._publisher = Publisher(redis_settings)
        self._database = Database(database)
        key = settings.token_key.get_secret_value()
        tasks, queues = OpenTasks(), PoolQueues()
        ledger = OperatorLedger(self._redis)
        self._writer = StatusWriter(kube, settings.status_writes_per_second)
        self._dispatcher = Dispatcher(
            tasks,
            queues,
            ledger,
            self._publisher,
            self._writer,
            token_key=key,
            quiet_seconds=settings.quiet_seconds,
        )
        self._retention = Retention(
            kube,
            self._database,
            default_seconds=settings.ttl_seconds_after_finished,
            per_namespace=settings.finished_tasks_per_namespace,
        )
        closer = Closer(tasks, self._writer, ledger, self._dispatcher.wake_at, self._retention.finished)
        self._dispatcher.closer = closer
        self._dispatcher.dependencies = DependencyLookup(tasks, kube, self._database)
        self.observer = Observer(
            tasks, self._writer, closer, kube, wake=self._dispatcher.wake, requeue=self._dispatcher.requeue
        )
        self.pools = PoolKeeper(
            kube,
            queues,
            image=settings.worker_image,
            lease_seconds=settings.lease_seconds,
            changed=self._dispatcher.pools_changed,
        )
        self._reconciler = Reconciler(
            tasks,
            ledger,
            self._dispatcher,
            closer,
            self.observer,
            lease_seconds=settings.lease_seconds,
            resync_seconds=settings.resync_seconds,
        )
        self._store = ApplyToStore(
            self._database, StreamReader(self._redis, "pg"), lambda: kube.list_pages(tasks_path())
        )
        self._resources = self._apply_to_resources(settings, tasks, closer, ledger)
        self._health = HealthServer(settings.health_host, settings.health_port, self._problems)
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False
        self.broken = False
        """A loop ended by itself, which none ever should."""

    def _apply_to_resources(
        self, settings: OperatorSettings, tasks: OpenTasks, closer: Closer, ledger: OperatorLedger
    ) -> ApplyToResources:
        return ApplyToResources(
            tasks,
            self._writer,
            closer,
            ledger,
            StreamReader(self._redis, "cr"),
            token_key=settings.token_key.get_secret_value(),
            quiet_seconds=settings.quiet_seconds,
            wake_at=self._dispatcher.wake_at,
            unsettled=self._store.mirror_again,
            data_lost=self._reconciler.recover,
        )

    async def start(self) -> None:
        """Read what there is, then start the loops; waits for the API server and Redis as long as it takes."""
        await self._health.start()
        while True:
            try:
                await self.pools.list_pools()
                await self.observer.list_open()
                await self._reconciler.start()
            except TaskflowError as error:
                log.warning("start_postponed", error=str(error))
                await asyncio.sleep(START_RETRY_SECONDS)
            else:
                break
        for loop in (
            self._writer.run(),
            self._dispatcher.run(),
            *self._resources.loops(),
            *self._store.loops(),
            *self._reconciler.loops(),
            *self._retention.loops(),
        ):
            job = asyncio.create_task(loop)
            job.add_done_callback(self._loop_ended)
            self._loops.append(job)
        log.info("operator_started")

    async def stop(self) -> None:
        """Stop the loops, let running writes end, close everything."""
        self._stopping = True
        running = {loop for loop in self._loops if not loop.done()}
        while running:
            for loop in running:
                loop.cancel()
            # Again, if need be: a Redis connection that is just being made can swallow a cancellation.
            _, running = await asyncio.wait(running, timeout=1)
        await self._writer.drain(DRAIN_SECONDS)
        try:
            await self._resources.flush()
        except TaskflowError as error:
            # They are read again at the next start; applying them twice has no effect.
            log.warning("acknowledge_skipped", error=str(error))
        self._dispatcher.close()
        self._publisher.close()
        await self._redis.aclose()
        await self._database.close()
        await self._kube.close()
        await self._health.stop()
        log.info("operator_stopped")

    def _loop_ended(self, loop: asyncio.Task[None]) -> None:
        if self._stopping:
            return
        # All of them depend on each other: start afresh rather than go on with a part.
        self.broken = True
        log.critical("loop_ended", loop=str(loop.get_coro()), exc_info=None if loop.cancelled() else loop.exception())
        os.kill(os.getpid(), signal.SIGTERM)

    def _problems(self) -> list[str]:
        if not self._loops:
            return ["starting: has not read all Tasks yet"]
        if self.broken:
            return ["a loop ended; the log says why"]
        if (age := self._reconciler.contact_age) > REDIS_AGE_LIMIT:
            return [f"Redis has not answered for {age:.0f} s"]
        return []
