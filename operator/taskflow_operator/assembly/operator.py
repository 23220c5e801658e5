"""The composition root: builds the parts and connects them. No logic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

import redis.asyncio
from prometheus_client import REGISTRY

from taskflow_core.broker.publish import Publisher
from taskflow_core.domain.events import Event
from taskflow_core.domain.items import ItemHistory, ItemRow
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import Task
from taskflow_core.errors import Dependency, TaskflowError
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_core.ledger.arrays import ArrayLedger
from taskflow_core.ledger.cache_versions import CacheVersions
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.ledger.presence import PoolView
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.settings import CacheSettings, DatabaseSettings, RedisSettings
from taskflow_core.store import items, repository
from taskflow_core.store.engine import create_engine, transaction
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_core.telemetry.tracing import Tracing
from taskflow_operator.arrays.chunk_delivery import ChunkDelivery
from taskflow_operator.arrays.controller import Arrays
from taskflow_operator.arrays.driver import ArrayServices
from taskflow_operator.arrays.item_writer import ItemWriter
from taskflow_operator.history.mirror import HistoryMirror
from taskflow_operator.isolated.controller import JobController
from taskflow_operator.kopf_handlers.runner import KopfRunner
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.pools.metrics import PoolMetrics
from taskflow_operator.pools.scaler import Scaler
from taskflow_operator.process import gc_tuning
from taskflow_operator.process.health import CheckResult, HealthServer
from taskflow_operator.process.leader_election import LEASE_NAME, LeaderElection
from taskflow_operator.process.readiness import API_SERVER_SECONDS, SLACK_SECONDS, OperatorState, check_results
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.event_recorder import EventRecorder
from taskflow_operator.runtime.kind_watch import KindWatch
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.runtime.supervisor import keep_running, run_all
from taskflow_operator.settings import OperatorSettings
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.dependencies import DependencyLookup
from taskflow_operator.tasks.dispatcher import Dispatcher
from taskflow_operator.tasks.event_consumer import EventConsumer
from taskflow_operator.tasks.finished import Finished
from taskflow_operator.tasks.observer import Observer
from taskflow_operator.tasks.open_tasks import OpenTasks, PoolQueues
from taskflow_operator.tasks.orphaned_ends import OrphanedEnds
from taskflow_operator.tasks.queue_metrics import QueueMetrics, StreamMetrics
from taskflow_operator.tasks.reconciler import Reconciler
from taskflow_operator.tasks.retention import Retention
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
START_RETRY_SECONDS = 2.0
DRAIN_SECONDS = 5.0
CLOSE_SECONDS = 3.0


class Database:
    """The history as the mirror needs it, on an engine of its own."""

    def __init__(self, settings: DatabaseSettings, marks: CacheVersions) -> None:
        self._engine = create_engine(settings, application_name="taskflow-operator", pool_size=2)
        self._marks = marks

    async def apply_events(self, events: Sequence[Event]) -> None:
        """ChunkOutcome events into the tables, in one transaction."""
        touched: Collection[str] = ()
        async with transaction(self._engine) as connection:
            await repository.apply_events(connection, events)
            if self._marks.wanted:
                touched = await repository.namespaces_of(connection, {event.uid for event in events})
            await self._marks.changing(touched)
        await self._marks.changed(touched)

    async def upsert_tasks(self, tasks: Sequence[Task]) -> None:
        """Mirror Tasks as they stand, in one transaction."""
        touched = {task.namespace for task in tasks}
        async with transaction(self._engine) as connection:
            await repository.upsert_tasks(connection, tasks)
            await self._marks.changing(touched)
        await self._marks.changed(touched)

    async def outcome(self, namespace: str, name: str) -> Phase | None:
        """Terminal phase of the latest Task of that name; None if there is none, or it never finished."""
        async with transaction(self._engine) as connection:
            row = await repository.get_task(connection, namespace, name)
        return Phase(row.phase) if row is not None and Phase(row.phase).terminal else None

    async def name_of(self, uid: str) -> tuple[str, str] | None:
        """Namespace and name of a Task; None if the history never heard of it."""
        async with transaction(self._engine) as connection:
            return await repository.name_of(connection, uid)

    async def stored(self, uids: Sequence[str]) -> set[str]:
        """Those of the uids whose end is in the history."""
        async with transaction(self._engine) as connection:
            return await repository.finished(connection, uids)

    async def past(self, uid: str) -> ItemHistory:
        """What has ended of an array."""
        async with transaction(self._engine) as connection:
            return await items.past_of(connection, uid)

    async def failed_of(self, namespace: str, uid: str) -> RangeSet | None:
        """The failed items of an array that has ended; None if there is none of that uid."""
        async with transaction(self._engine) as connection:
            return await items.failed_of(connection, namespace, uid)

    async def store_items(self, ended: Mapping[str, Sequence[ItemRow]]) -> None:
        """Add items that ended, in one transaction."""
        async with transaction(self._engine) as connection:
            await items.store_items(connection, ended, datetime.now(UTC))

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()


class Operator:
    """All parts of the operator, from start to stop."""

    def __init__(
        self,
        settings: OperatorSettings,
        redis_settings: RedisSettings,
        caching: CacheSettings,
        database: DatabaseSettings,
        kube: KubeClient,
        lease_kube: KubeClient,
        leadership: LeaderElection,
        tracing: Tracing,
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._lease_kube = lease_kube
        self._leadership = leadership
        self._tracing = tracing
        self._redis: redis.asyncio.Redis = connect_async(redis_settings)
        self._publisher = Publisher(redis_settings)
        self._cache = connect_async(RedisSettings(url=caching.url)) if caching.url is not None else None
        self._database = Database(database, CacheVersions(self._cache))
        self._items = ItemWriter(self._database)
        tasks, queues = OpenTasks(), PoolQueues()
        ledger = OperatorLedger(self._redis)
        times = AttemptTimes(tracing)
        self.runner: KopfRunner | None = None
        """Set before it works."""
        self._events = EventRecorder(kube, settings.leader_identity)
        self._writer = StatusWriter(kube, settings.status_writes_per_second, weight=settings.weight)
        self._work_queue = WorkQueue(namespace_of=tasks.namespace_of, weight=settings.weight)
        self._wire_pools(tasks, queues)
        self._retention = Retention(
            kube,
            self._database,
            default_seconds=settings.ttl_seconds_after_finished,
            per_namespace=settings.finished_tasks_per_namespace,
        )
        finished = Finished(times, self._events, self._retention.finished, lambda task: self._arrays.forget(task))  # noqa: PLW0108 - made below
        closer = Closer(tasks, self._writer, ledger, self._work_queue.wake_at, finished)
        self._arrays = self._make_arrays(tasks, ledger, closer)
        self._wire_dispatch(tasks, queues, ledger, closer)
        observer = Observer(
            tasks, self._writer, closer, kube, wake=self._work_queue.wake, requeue=self._dispatcher.requeue
        )
        self._watch = KindWatch(kube, observer)
        self._wire_streams(tasks, ledger, closer, observer, times)
        self._leads = self._started = False
        self._failing: set[str] = set()
        self._wire_face(tasks)

    def _make_arrays(self, tasks: OpenTasks, ledger: OperatorLedger, closer: Closer) -> Arrays:
        now = partial(datetime.now, UTC)
        broker = ChunkDelivery(
            ledger,
            ArrayLedger(self._redis),
            send=lambda messages: self._dispatcher.send(messages),  # noqa: PLW0108 - made later
            in_order=lambda: self._dispatcher.in_order,
            token_key=self._settings.token_key.get_secret_value(),
            now=now,
        )
        return Arrays(
            ArrayServices(
                tasks,
                broker,
                self._items,
                self._writer,
                closer,
                queued=lambda task: self._dispatcher.queued_status(task),  # noqa: PLW0108
                slots=self._scaler.slots,
                wake=self._work_queue.wake,
                now=now,
            )
        )

    def _wire_dispatch(self, tasks: OpenTasks, queues: PoolQueues, ledger: OperatorLedger, closer: Closer) -> None:
        kube, settings = self._kube, self._settings
        self._jobs = JobController(
            tasks,
            kube,
            ledger,
            self.pools.pod_template,
            lease_seconds=settings.lease_seconds,
            again=lambda lost: self._dispatcher.publish_again(lost),  # noqa: PLW0108 - made below
            show=lambda uid: self._dispatcher.show_queued(uid),  # noqa: PLW0108 - made below
        )
        self._dispatcher = Dispatcher(
            tasks,
            self._work_queue,
            queues,
            DependencyLookup(tasks, kube, self._database),
            ledger,
            self._publisher,
            self._jobs,
            self._arrays,
            self._writer,
            closer,
            queued=self._scaler.wake,
            token_key=settings.token_key.get_secret_value(),
            quiet_seconds=settings.quiet_seconds,
        )

    def _wire_pools(self, tasks: OpenTasks, queues: PoolQueues) -> None:
        self.pools = PoolController(
            self._kube,
            queues,
            image=self._settings.worker_image,
            lease_seconds=self._settings.lease_seconds,
            changed=lambda namespace: self._dispatcher.pools_changed(namespace),  # noqa: PLW0108 - made later
            events=self._events,
        )
        self._scaler = Scaler(
            tasks,
            self._work_queue,
            self.pools,
            self._kube,
            PoolView(self._redis),
            lambda namespace, queue: self._arrays.demand(namespace, queue),  # noqa: PLW0108 - made later
        )

    def _wire_streams(
        self, tasks: OpenTasks, ledger: OperatorLedger, closer: Closer, observer: Observer, times: AttemptTimes
    ) -> None:
        settings = self._settings
        self._reconciler = Reconciler(
            tasks,
            ledger,
            self._work_queue,
            self._dispatcher,
            self._arrays,
            observer,
            lease_name=f"{settings.leader_namespace}/{LEASE_NAME}",
            lease_seconds=settings.lease_seconds,
            resync_seconds=settings.resync_seconds,
            caught_up=lambda: self._resources.caught_up,
        )
        may_read = self._leadership.until_confirmed
        self._store = HistoryMirror(
            self._database, StreamReader(self._redis, "pg"), lambda: self._kube.list_pages(tasks_path()), may_read
        )
        self._resources = EventConsumer(
            tasks,
            self._writer,
            closer,
            ledger,
            StreamReader(self._redis, "cr"),
            token_key=settings.token_key.get_secret_value(),
            quiet_seconds=settings.quiet_seconds,
            wake_at=self._work_queue.wake_at,
            unknown=OrphanedEnds(ledger, self._kube, self._database, self._store.mirror_again).close,
            data_lost=self._reconciler.recover,
            times=times,
            may_read=may_read,
            arrays=self._arrays,
        )

    async def open(self) -> None:
        """Answer probes."""
        await self._health.start()

    async def work(self) -> None:
        """Read what there is, then run the loops; waits for the API server and Redis as long as it takes."""
        self._leads = True
        while True:
            try:
                await self.pools.list_pools()
                await self._watch.list()
                await self._reconciler.start()
            except TaskflowError as error:
                dependency_health.failed(error)
                await asyncio.sleep(START_RETRY_SECONDS)
            else:
                break
        gc_tuning.freeze_known()
        self._started = True
        log.info("operator_started")
        await run_all([keep_running(kind, start, self._failing) for kind, start in self._loops().items()])

    async def drain(self) -> None:
        """Let running writes end, acknowledge what is done, let the running publication end."""
        self._started = False
        await self._writer.drain(DRAIN_SECONDS)
        for closing in (self._resources.flush(), asyncio.to_thread(self._dispatcher.close)):
            try:
                await asyncio.wait_for(closing, CLOSE_SECONDS)
            except (TaskflowError, TimeoutError) as error:
                # What is not acknowledged is read again at the next start, what is not published is found by its reconciler.
                log.warning("drain_cut_short", error=str(error) or type(error).__name__)

    async def close(self) -> None:
        """Close everything."""
        REGISTRY.unregister(self._queue_gauges)
        REGISTRY.unregister(self._pool_gauges)
        await asyncio.wait([asyncio.create_task(asyncio.to_thread(self._tracing.close))], timeout=CLOSE_SECONDS)
        self._publisher.close()
        await self._redis.aclose()
        if self._cache is not None:
            await self._cache.aclose()
        await self._database.close()
        await self._kube.close()
        await self._lease_kube.close()
        await self._health.stop()
        log.info("operator_stopped")

    def _loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        assert self.runner is not None, "wired before it works"  # noqa: S101 - a mistake of ours, not of a user
        runner = self.runner
        return {
            "status": self._writer.run,
            "dispatch": self._dispatcher.run,
            "arrays": self._arrays.run,
            "items": self._items.run,
            "resources": lambda: run_all(self._resources.loops()),
            "history": lambda: run_all(self._store.loops()),
            "reconcile": lambda: run_all(self._reconciler.loops()),
            "pools": self.pools.run,
            "scaling": self._scaler.run,
            "jobs": self._jobs.run,
            "retention": lambda: run_all(self._retention.loops()),
            "watch": self._watch.run,
            "kopf": runner.run,
            "events": self._events.run,
            "gauges": self._stream_gauges.run,
        }

    def _wire_face(self, tasks: OpenTasks) -> None:
        self._health = HealthServer(self._settings.health_host, self._settings.health_port, self._findings)
        self._queue_gauges = QueueMetrics(tasks, self.pools.served)
        self._pool_gauges = PoolMetrics(self.pools.kept)
        self._stream_gauges = StreamMetrics(self._redis, self._queue_gauges)

        def answered(verb: str, code: int) -> None:
            metrics.K8S_REQUESTS.labels(verb=verb, code=str(code)).inc()
            if 0 < code < 500:  # noqa: PLR2004 - HTTP's own border
                dependency_health.succeeded(Dependency.API_SERVER)
            if 0 < code < 400:  # noqa: PLR2004 - likewise
                dependency_health.succeeded(dependency_health.PERMISSIONS)

        self._kube.answered = self._lease_kube.answered = answered
        self._kube.may_write = lambda: self._leadership.confirmed
        metrics.BUILD.labels(version=version("taskflow-operator")).set(1)
        metrics.LEADER.set_function(lambda: float(self._leads and self._leadership.confirmed))
        metrics.WATCH_AGE.set_function(lambda: time.monotonic() - self._watch.latest)
        for name, each in dependency_health.DEPENDENCIES.items():
            metrics.DEPENDENCY_AWAY.labels(dependency=name).set_function(lambda each=each: each.seconds)  # type: ignore[misc]
        REGISTRY.register(self._queue_gauges)
        REGISTRY.register(self._pool_gauges)

    def _findings(self) -> list[CheckResult]:
        now, settings = time.monotonic(), self._settings
        unrenewed = self._reconciler.pause + SLACK_SECONDS
        return check_results(
            OperatorState(
                standby=not self._leads,
                holder=self._leadership.holder if self._leadership.holder != settings.leader_identity else "",
                started=self._started,
                confirmed=self._leadership.confirmed,
                lost_loops=sorted(self._failing),
                redis_age=self._reconciler.contact_age,
                api_server_age=now - max(self._kube.answered_at, self._lease_kube.answered_at),
                api_server_limit=API_SERVER_SECONDS if settings.leader_election else unrenewed,
                watch_down=max(self._watch.down_seconds, self.runner.down_seconds if self.runner else 0.0),
                lags=list(self._stream_gauges.lags.values()),
            )
        )
