"""Scales WorkerPools by demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from taskflow_core.domain.naming import queue_lists
from taskflow_core.domain.workerpool import WorkerPool
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.kube.client import MERGE_PATCH, KubeClient, delete_options, resource_path
from taskflow_core.ledger.presence import PoolView, WorkerName, WorkerReport, WorkerSnapshot
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.pools.controller import PoolController, PoolState
from taskflow_operator.pools.demand import DemandView, serving_slots
from taskflow_operator.pools.pod_selection import Workers, find_faulty, plan_scale_down
from taskflow_operator.pools.scaling import Demand, ScalingHistory, Why, decide
from taskflow_operator.pools.status import LastDecision, PoolFigures
from taskflow_operator.pools.worker_slots import WorkerSlots
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.demand_signal import DemandSignal
from taskflow_operator.runtime.pod import Pod
from taskflow_operator.runtime.supervisor import ConsecutiveErrors

log = get_logger(__name__)
TICK_SECONDS = 1.0
PAUSE_SECONDS = 0.1
"""The least time between two decisions."""
SHOW_SECONDS = 5.0
"""The time between two writes of figures that change all the time; decisions are written at once."""
LOOK_SECONDS = 5.0
"""The time between two looks at the pods of a pool that is not healthy."""
REMOVAL_SECONDS = 30.0
REPORT_SECONDS = 15.0
"""After an outage of Redis, workers have this time to report before they are taken for silent."""
FORGET_SECONDS = 600.0
"""A worker that did not report for this long is forgotten: its pod is gone."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass
class _PoolMemory:
    """What is remembered of a pool between two rounds."""

    history: ScalingHistory = field(default_factory=ScalingHistory)
    marked: frozenset[str] = frozenset()
    """Pods whose deletion cost was lowered in the last round: the ReplicaSet controller has seen it by now."""
    shown: float = 0.0
    looked: float = 0.0
    waits_since: datetime | None = None
    """Since when work has waited without a break."""
    removed: dict[str, float] = field(default_factory=dict)
    """Pods that were removed, and when: they are not asked to resume while they may still be there."""


class Scaler:
    """Decides every second, and whenever a Task is queued, how many pods each pool has. Removes only pods that hold
    nothing.

    Args:
        pools: the pools and their Deployments.
        kube: for pods.
        view: the reports of workers, in Redis.
        demand: the work that waits for each pool.
        signal: set when something is queued.
        slots: where the slots of workers are published.
        now: the time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        pools: PoolController,
        kube: KubeClient,
        view: PoolView,
        demand: DemandView,
        signal: DemandSignal,
        slots: WorkerSlots,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = pools
        self._kube = kube
        self._view = view
        self._demand = demand
        self._signal = signal
        self._slots = slots
        self._now = now
        self._clock = clock
        self._memories: dict[str, _PoolMemory] = {}
        self._errors = ConsecutiveErrors("scaling")
        self._answers_since: float | None = None
        """Since when Redis has answered without a break."""

    async def run(self) -> None:
        """Decide until cancelled."""
        while True:
            self._errors.check()
            try:
                await self._tick()
            except TaskflowError as error:
                self._answers_since = None
                dependency_health.failed(error)
                await asyncio.sleep(TICK_SECONDS)
            else:
                self._signal.handled()
            await asyncio.sleep(PAUSE_SECONDS)
            await self._signal.wait(TICK_SECONDS - PAUSE_SECONDS)

    async def _tick(self) -> None:
        pools = list(self._pools.pools.values())
        uids = {kept.pool.uid for kept in pools}
        for uid in [uid for uid in self._memories if uid not in uids]:
            del self._memories[uid]
        if not pools:
            return
        queues = sorted(self._pools.served())
        lists = {place: queue_lists(place[0], [place[1]]) for place in queues}
        namespaces = sorted({kept.pool.namespace for kept in pools})
        snapshot = await self._view.snapshot(namespaces, [name for names in lists.values() for name in names])
        if self._answers_since is None:
            self._answers_since = self._clock()
        depths = {place: sum(snapshot.lengths[name] for name in names) for place, names in lists.items()}
        self._slots.publish(serving_slots(snapshot))
        limit = snapshot.now_ms - FORGET_SECONDS * 1000
        silent = [name for name, report in snapshot.reports.items() if report.at_ms < limit]
        await self._view.forget([*silent, *(name for name in snapshot.intakes if name not in snapshot.reports)])
        due = self._demand.due_soon()
        for kept in pools:
            try:
                await self._one(kept, snapshot, depths, due)
            except TaskflowError as error:
                dependency_health.failed(error)
            except Exception as error:  # noqa: BLE001 - one pool at fault must not stop the others
                self._errors.record(error, pool=f"{kept.pool.namespace}/{kept.pool.name}")
            else:
                self._errors.clear()

    async def _one(
        self,
        kept: PoolState,
        snapshot: WorkerSnapshot,
        depths: Mapping[tuple[str, str], int],
        due: Mapping[tuple[str, str], int],
    ) -> None:
        pool, memory = kept.pool, self._memories.setdefault(kept.pool.uid, _PoolMemory())
        workers = _workers_of(pool, snapshot)
        fresh = [report for name in workers.reports if (report := workers.report(name)) is not None]
        demand = self._demand.of(pool, due)
        memory.waits_since = (memory.waits_since or self._now()) if demand.ready else None
        kept.found = replace(
            kept.found,
            figures=PoolFigures(
                demand,
                {
                    queue: depths[pool.namespace, queue]
                    for queue in pool.spec.queues
                    if (pool.namespace, queue) in depths
                },
                sum(report.slots for report in fresh),
                sum(report.busy for report in fresh),
            ),
        )
        at_once = await self._scale(kept, memory, workers, demand)
        await self._look_at_pods(kept, memory, workers)
        if at_once or self._clock() - memory.shown >= SHOW_SECONDS:
            memory.shown = self._clock()
            await self._pools.show(kept)

    async def _scale(self, kept: PoolState, memory: _PoolMemory, workers: Workers, demand: Demand) -> bool:
        """Bring the number of pods closer to what is needed; True if anything was decided."""
        spec, current = kept.pool.spec, kept.replicas
        if spec.paused and not spec.drain:
            await self._view.stop_intake(_named(kept.pool, sorted(set(workers.reports) - workers.asked)))
            return False
        if current is None:
            return False
        if kept.pool.fixed_replicas is not None:
            await self._view.resume_intake(_named(kept.pool, sorted(workers.asked)))
            return False
        if spec.drain:
            return await self._down(kept, memory, workers, 0, Why.DRAINING, "the pool drains")
        assert spec.scaling is not None, "else its number is fixed"  # noqa: S101 - a mistake of ours, not of a user
        decision = decide(spec.scaling, spec.concurrency, current, demand, memory.history, self._now())
        memory.history = decision.history
        kept.found = replace(kept.found, desired=decision.replicas)
        if decision.replicas > current:
            await self._view.resume_intake(_named(kept.pool, sorted(workers.asked)))
            await self._set(kept, memory, decision.replicas, decision.reason, decision.message)
            if (age := self._signal.age) is not None:
                metrics.SCALE_REACTION.observe(age)
            return True
        return await self._down(kept, memory, workers, decision.replicas, decision.reason, decision.message)

    async def _down(
        self, kept: PoolState, memory: _PoolMemory, workers: Workers, wanted: int, reason: Why, message: str
    ) -> bool:
        current = kept.replicas or 0
        if current <= wanted and not workers.asked:
            memory.marked = frozenset()
            return False
        pods = await self._pods(kept.pool)
        plan = plan_scale_down(pods, workers, current - wanted, busy_too=kept.pool.spec.drain)
        now = self._clock()
        memory.removed = {name: when for name, when in memory.removed.items() if now - when < REMOVAL_SECONDS}
        resumed = [name for name in plan.resume if name not in memory.removed]
        await self._view.resume_intake(_named(kept.pool, resumed))
        await self._view.stop_intake(_named(kept.pool, plan.stop))
        going = [name for name in plan.remove if name in memory.marked]
        await self._mark(kept.pool, [name for name in plan.remove if name not in memory.marked])
        memory.marked = frozenset(plan.remove)
        if not going:
            return False
        await self._set(kept, memory, current - len(going), reason, message)
        memory.removed |= dict.fromkeys(going, now)
        return True

    async def _set(self, kept: PoolState, memory: _PoolMemory, replicas: int, reason: Why, message: str) -> None:
        former = kept.replicas or 0
        await self._pools.scale(kept, replicas)
        direction = "up" if replicas > former else "down"
        metrics.SCALE_DECISIONS.labels(direction=direction, reason=reason.value).inc()
        kept.found = replace(
            kept.found, decision=LastDecision(self._now(), replicas, reason.value, message), desired=replicas
        )
        memory.shown = self._clock()
        log.info(
            "pool_scaled",
            pool=f"{kept.pool.namespace}/{kept.pool.name}",
            replicas=replicas,
            former=former,
            reason=reason.value,
            why=message,
        )
        self._pools.note(
            kept,
            "ScaledUp" if replicas > former else "ScaledDown",
            f"from {former} to {replicas} pods: {reason.value}, {message}",
            action="Scale",
        )

    async def _look_at_pods(self, kept: PoolState, memory: _PoolMemory, workers: Workers) -> None:
        """Find pods that cannot start, and workers that do no work."""
        ready = ((kept.found.deployment or {}).get("status") or {}).get("readyReplicas", 0)
        well = ready == (kept.replicas or 0) and memory.waits_since is None and len(workers.reports) <= ready
        if (well and kept.found.problem is None) or self._clock() - memory.looked < LOOK_SECONDS:
            return
        memory.looked = self._clock()
        pods = await self._pods(kept.pool)
        problem = next((f"pod {pod.name}: {pod.problem}" for pod in pods if pod.problem and not pod.terminating), None)
        if problem != kept.found.problem:
            kept.found = replace(kept.found, problem=problem)
            await self._pools.show(kept)
        if self._answers_since is None or self._clock() - self._answers_since < REPORT_SECONDS:
            return
        waiting = (self._now() - memory.waits_since).total_seconds() if memory.waits_since else 0.0
        uids = {pod.name: pod.uid for pod in pods}
        for name, fault in find_faulty(pods, workers, waiting, self._now()).items():
            log.warning("worker_replaced", pod=f"{kept.pool.namespace}/{name}", fault=fault.value)
            metrics.WORKERS_REPLACED.labels(fault=fault.value).inc()
            self._pools.warn(kept, "WorkerReplaced", f"pod {name} {fault.explained}", action="Replace")
            await self._delete(kept.pool.namespace, name, uids[name])
            await self._view.forget(_named(kept.pool, [name]))

    async def _pods(self, pool: WorkerPool) -> Sequence[Pod]:
        path = resource_path("api/v1", "pods", pool.namespace)
        found = await self._kube.request("GET", path, params={"labelSelector": pool.label_selector})
        return [Pod.from_object(body) for body in found["items"]]

    async def _mark(self, pool: WorkerPool, names: Sequence[str]) -> None:
        """Have the ReplicaSet remove these pods first (KEP-2255)."""
        body = {"metadata": {"annotations": {DELETION_COST: "-100"}}}
        for name in names:
            path = resource_path("api/v1", "pods", pool.namespace, name)
            try:
                await self._kube.request("PATCH", path, body, content_type=MERGE_PATCH)
            except NotFound:
                continue

    async def _delete(self, namespace: str, name: str, uid: str) -> None:
        path = resource_path("api/v1", "pods", namespace, name)
        try:
            await self._kube.request("DELETE", path, delete_options(uid=uid))
        except NotFound:
            return


def _workers_of(pool: WorkerPool, snapshot: WorkerSnapshot) -> Workers:
    reports: dict[str, WorkerReport] = {
        worker.name: report
        for worker, report in snapshot.reports.items()
        if worker.namespace == pool.namespace and report.pool == pool.name
    }
    asked = {worker.name for worker in snapshot.intakes if worker.namespace == pool.namespace}
    return Workers(snapshot.now_ms, reports, frozenset(asked & reports.keys()))


def _named(pool: WorkerPool, names: Sequence[str]) -> list[WorkerName]:
    return [WorkerName(pool.namespace, name) for name in names]
