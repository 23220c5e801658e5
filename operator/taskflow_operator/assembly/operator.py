"""The whole operator, from start to stop."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from prometheus_client import REGISTRY

from taskflow_core.domain.task import Isolation
from taskflow_core.errors import TaskflowError
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.assembly import evidence, isolated
from taskflow_operator.assembly.arrays import ArrayFeature
from taskflow_operator.assembly.foundation import CLOSE_SECONDS, Foundation
from taskflow_operator.assembly.history import HistoryFeature
from taskflow_operator.assembly.part import all_loops
from taskflow_operator.assembly.pools import PoolFeature
from taskflow_operator.assembly.schedules import ScheduleFeature
from taskflow_operator.assembly.tasks import TaskCore, TaskFeature
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.pools.worker_slots import WorkerSlots
from taskflow_operator.process import gc_tuning
from taskflow_operator.process.health import CheckResult, HealthServer
from taskflow_operator.process.readiness import API_SERVER_SECONDS, SLACK_SECONDS, OperatorState, check_results
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import keep_running, run_all

log = get_logger(__name__)
START_RETRY_SECONDS = 2.0
DRAIN_SECONDS = 5.0


class Operator:
    """All features together.

    Args:
        base: connections and shared services.
    """

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self._core = core = TaskCore.build(base)
        served, slots = ServedQueues(), WorkerSlots()
        history = HistoryFeature.build(base)
        self._arrays = arrays = ArrayFeature.build(base, core, served, slots)
        self._pools = pools = PoolFeature.build(base, core, served, slots, arrays.controller)
        launcher = isolated.build_launcher(base, core, pools.controller)
        schedules = ScheduleFeature.build(base, core, history)
        pods, watched_pods = evidence.build(base)
        self._tasks = tasks = TaskFeature.build(
            base, core, history, served, arrays.controller, {Isolation.POD: launcher}, pods
        )
        tasks.streams.set_aside.append(pools.controller.namespace_set_aside)
        jobs = isolated.build_controller(base, core, launcher, tasks.delivery)
        parts = (base.part, history.part, arrays.part, pools.part, schedules.part, tasks.part, jobs, watched_pods)
        self._loops = all_loops(parts)
        self._watches = [watch for part in parts for watch in part.watches]
        self._collectors = [collector for part in parts for collector in part.collectors]
        self._leads = self._started = False
        self._failing: set[str] = set()
        self._health = HealthServer(base.settings.health_host, base.settings.health_port, self._checks)
        self._register_metrics()

    def _register_metrics(self) -> None:
        metrics.BUILD.labels(version=version("taskflow-operator")).set(1)
        metrics.LEADER.set_function(lambda: float(self._leads and self._base.leadership.is_confirmed()))
        for name, health in dependency_health.DEPENDENCIES.items():
            metrics.DEPENDENCY_UNAVAILABLE.labels(dependency=name).set_function(lambda health=health: health.seconds)  # type: ignore[misc]
        for collector in self._collectors:
            REGISTRY.register(collector)

    async def open(self) -> None:
        """Answer probes."""
        await self._health.start()

    async def work(self) -> None:
        """Read what exists, then run the loops; waits for the API server and Redis as long as it takes."""
        self._leads = True
        while True:
            try:
                await self._pools.controller.list_pools()
                for watch in self._watches:
                    await watch.list()
                await self._tasks.reconciler.start()
            except TaskflowError as error:
                dependency_health.failed(error)
                await asyncio.sleep(START_RETRY_SECONDS)
            else:
                break
        gc_tuning.freeze_known()
        self._started = True
        log.info("operator_started")
        await run_all([keep_running(name, loop, self._failing) for name, loop in self._loops.items()])

    async def drain(self) -> None:
        """Let running writes end, acknowledge what is done, let the running publication end."""
        self._started = False
        await self._base.writer.drain(DRAIN_SECONDS)
        for closing in (self._core.acknowledgements.flush(), asyncio.to_thread(self._core.queue.close)):
            try:
                await asyncio.wait_for(closing, CLOSE_SECONDS)
            except (TaskflowError, TimeoutError) as error:
                # What is not acknowledged is read again after the next start; what is not published, its reconciler
                # finds.
                log.warning("drain_cut_short", error=str(error) or type(error).__name__)

    async def close(self) -> None:
        """Close everything."""
        for collector in self._collectors:
            REGISTRY.unregister(collector)
        await self._base.close()
        await self._health.stop()
        log.info("operator_stopped")

    def _checks(self) -> list[CheckResult]:
        settings, leadership, reconciler = self._base.settings, self._base.leadership, self._tasks.reconciler
        without_lease = reconciler.pause + SLACK_SECONDS
        return check_results(
            OperatorState(
                standby=not self._leads,
                holder=leadership.holder if leadership.holder != settings.leader_identity else "",
                started=self._started,
                confirmed=leadership.is_confirmed(),
                failing_loops=sorted(self._failing),
                redis_age=reconciler.contact_age,
                api_server_age=self._base.api_server_age,
                api_server_limit=API_SERVER_SECONDS if settings.leader_election else without_lease,
                watch_down=max(self._pools.kopf.down_seconds, *(watch.down_seconds for watch in self._watches)),
                arrays_wait=self._arrays.controller.history_wait_seconds,
                lags=list(self._tasks.streams.lags.values()),
            )
        )
