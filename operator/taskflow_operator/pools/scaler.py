from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from taskflow_core.domain.naming import queue_lists
from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.kube.client import MERGE_PATCH, KubeClient, delete_options, resource_path
from taskflow_core.ledger.presence import PoolView, WorkerReport, WorkerSnapshot
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.pools.controller import PoolController, PoolState
from taskflow_operator.pools.pod_selection import Pod, Workers, faulty, plan_scale_down
from taskflow_operator.pools.scaling import Demand, ScalingHistory, Why, decide
from taskflow_operator.pools.status import LastDecision, Pool, PoolFigures
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
TICK_SECONDS = 1.0
PAUSE_SECONDS = 0.1
"""Between two decisions, however much changes."""
SHOW_SECONDS = 5.0
"""Between two writes of figures that change all the time; what was decided is written at once."""
LOOK_SECONDS = 5.0
"""Between two looks at the pods of a pool that is not as it should be."""
SOON = timedelta(seconds=5)
"""What becomes due within the time that a pod takes to start."""
PARTING_SECONDS = 30.0
SILENT_MS = 10_000
"""A worker that says nothing for so long has no slots to count on."""
FORGET_SECONDS = 600.0
"""After so long without a word a worker is forgotten: its pod ended without a farewell, and is gone."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass
class _PoolMemory:
    """What is remembered of a pool between two ticks."""

    history: ScalingHistory = field(default_factory=ScalingHistory)
    marked: frozenset[str] = frozenset()
    """Pods whose deletion cost was lowered at the last tick: the ReplicaSet's controller has seen it by now."""
    shown: float = 0.0
    looked: float = 0.0
    waits_since: datetime | None = None
    """Since when something has waited without a break."""
    parting: dict[str, float] = field(default_factory=dict)
    """Pods that were given up, and when: they are not asked back before they can be gone."""


class Scaler:
    """Decides each second, and whenever a Task is queued, how many pods each pool has; lets pods go that hold nothing.

    Args:
        tasks: the open Tasks.
        work_queue: when they become due.
        keeper: the pools and their Deployments.
        kube: for pods.
        view: what the workers say, in Redis.
        arrays: chunks of arrays in a queue of a namespace, waiting and running.
        now: the time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        work_queue: WorkQueue,
        keeper: PoolController,
        kube: KubeClient,
        view: PoolView,
        arrays: Callable[[str, str], tuple[int, int]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._work_queue = work_queue
        self._keeper = keeper
        self._kube = kube
        self._view = view
        self._arrays = arrays
        self._slots: Counter[tuple[str, str]] = Counter()
        self._now = now
        self._clock = clock
        self._changed = asyncio.Event()
        self._queued_at: float | None = None
        self._memories: dict[str, _PoolMemory] = {}
        self._errors = ConsecutiveErrors("scaling")

    def slots(self, namespace: str, queue: str) -> int:
        """Slots of the workers that serve a queue, as they said a moment ago."""
        return self._slots[namespace, queue]

    def wake(self) -> None:
        """Something was queued: decide soon."""
        if self._queued_at is None:
            self._queued_at = self._clock()
        self._changed.set()

    async def run(self) -> None:
        """Decide until cancelled."""
        while True:
            self._errors.check()
            try:
                await self._tick()
            except TaskflowError as error:
                dependency_health.failed(error)
                await asyncio.sleep(TICK_SECONDS)
            else:
                self._queued_at = None
            await asyncio.sleep(PAUSE_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), TICK_SECONDS - PAUSE_SECONDS)
            self._changed.clear()

    async def _tick(self) -> None:
        pools = list(self._keeper.kept.values())
        uids = {kept.pool.uid for kept in pools}
        for uid in [uid for uid in self._memories if uid not in uids]:
            del self._memories[uid]
        if not pools:
            return
        queues = sorted(self._keeper.served())
        lists = {place: queue_lists(place[0], [place[1]]) for place in queues}
        snapshot = await self._view.snapshot([name for names in lists.values() for name in names])
        depths = {place: sum(snapshot.lengths[name] for name in names) for place, names in lists.items()}
        self._count_slots(snapshot)
        limit = snapshot.now_ms - FORGET_SECONDS * 1000
        silent = [name for name, report in snapshot.reports.items() if report.at_ms < limit]
        await self._view.forget([*silent, *(name for name in snapshot.intakes if name not in snapshot.reports)])
        due = self._due_soon()
        for kept in pools:
            try:
                await self._one(kept, snapshot, depths, due)
            except TaskflowError as error:
                dependency_health.failed(error)
            except Exception as error:  # noqa: BLE001 - one pool at fault must not stop the others
                self._errors.record(error, pool=f"{kept.pool.namespace}/{kept.pool.name}")
            else:
                self._errors.clear()

    def _count_slots(self, snapshot: WorkerSnapshot) -> None:
        self._slots = Counter()
        for report in snapshot.reports.values():
            if report.serving and report.at_ms >= snapshot.now_ms - SILENT_MS:
                for queue in report.queues:
                    self._slots[report.namespace, queue] += report.slots

    def _due_soon(self) -> Mapping[tuple[str, str], int]:
        now = self._now()
        soon: dict[tuple[str, str], set[str]] = {}
        for uid in self._work_queue.due_by(now + SOON):
            known = self._tasks.get(uid)
            if known is None or known.task.status.phase is not Phase.PENDING or known.task.isolated:
                continue
            task = known.task
            starts = [when for when in (task.status.next_attempt_time, task.spec.not_before) if when is not None]
            if starts and max(starts) <= now + SOON and not task.spec.suspend:
                soon.setdefault((task.namespace, task.spec.queue), set()).add(uid)
        return {place: len(uids) for place, uids in soon.items()}

    def _demand(self, pool: Pool, due: Mapping[tuple[str, str], int]) -> Demand:
        ready = leased = soon = 0
        oldest = 0.0
        for queue in pool.spec.queues:
            place = pool.namespace, queue
            waiting, running = self._arrays(*place)
            ready += self._tasks.count(*place, Phase.QUEUED) + waiting
            leased += self._tasks.count(*place, Phase.RUNNING) + running
            soon += due.get(place, 0)
            if (since := self._tasks.oldest(*place)) is not None:
                oldest = max(oldest, (self._now() - since).total_seconds())
        return Demand(ready, leased, soon, oldest)

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
        demand = self._demand(pool, due)
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
            await self._keeper.show(kept)

    async def _scale(self, kept: PoolState, memory: _PoolMemory, workers: Workers, demand: Demand) -> bool:
        """Bring the number of pods nearer to what is wanted; True if anything was decided."""
        spec, current = kept.pool.spec, kept.replicas
        if spec.paused and not spec.drain:
            await self._view.stop_intake(sorted(set(workers.reports) - workers.asked))
            return False
        if current is None:
            return False
        if kept.pool.fixed_replicas is not None:
            await self._view.resume_intake(sorted(workers.asked))
            return False
        if spec.drain:
            return await self._down(kept, memory, workers, 0, Why.DRAINING, "the pool drains")
        assert spec.scaling is not None, "else its number is fixed"  # noqa: S101 - a mistake of ours, not of a user
        decision = decide(spec.scaling, spec.concurrency, current, demand, memory.history, self._now())
        memory.history = decision.history
        kept.found = replace(kept.found, desired=decision.replicas)
        if decision.replicas > current:
            await self._view.resume_intake(sorted(workers.asked))
            await self._set(kept, memory, decision.replicas, decision.reason, decision.message)
            if self._queued_at is not None:
                metrics.SCALE_REACTION.observe(self._clock() - self._queued_at)
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
        parting = plan_scale_down(pods, workers, current - wanted, busy_too=kept.pool.spec.drain)
        now = self._clock()
        memory.parting = {name: when for name, when in memory.parting.items() if now - when < PARTING_SECONDS}
        await self._view.resume_intake([name for name in parting.resume if name not in memory.parting])
        await self._view.stop_intake(parting.stop)
        going = [name for name in parting.go if name in memory.marked]
        await self._mark(kept.pool, [name for name in parting.go if name not in memory.marked])
        memory.marked = frozenset(parting.go)
        if not going:
            return False
        await self._set(kept, memory, current - len(going), reason, message)
        memory.parting |= dict.fromkeys(going, now)
        return True

    async def _set(self, kept: PoolState, memory: _PoolMemory, replicas: int, reason: Why, message: str) -> None:
        former = kept.replicas or 0
        await self._keeper.scale(kept, replicas)
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

    async def _look_at_pods(self, kept: PoolState, memory: _PoolMemory, workers: Workers) -> None:
        """Find pods that cannot start, and workers that are of no use."""
        ready = ((kept.found.deployment or {}).get("status") or {}).get("readyReplicas", 0)
        well = ready == (kept.replicas or 0) and memory.waits_since is None and len(workers.reports) <= ready
        if (well and kept.found.trouble is None) or self._clock() - memory.looked < LOOK_SECONDS:
            return
        memory.looked = self._clock()
        pods = await self._pods(kept.pool)
        trouble = next((f"pod {pod.name}: {pod.trouble}" for pod in pods if pod.trouble and not pod.leaving), None)
        if trouble != kept.found.trouble:
            kept.found = replace(kept.found, trouble=trouble)
            await self._keeper.show(kept)
        waiting = (self._now() - memory.waits_since).total_seconds() if memory.waits_since else 0.0
        uids = {pod.name: pod.uid for pod in pods}
        for name, fault in faulty(pods, workers, waiting, self._now()).items():
            log.warning("worker_replaced", pod=f"{kept.pool.namespace}/{name}", fault=fault.value)
            metrics.WORKERS_REPLACED.labels(fault=fault.value).inc()
            await self._delete(kept.pool.namespace, name, uids[name])
            await self._view.forget([name])

    async def _pods(self, pool: Pool) -> Sequence[Pod]:
        path = resource_path("api/v1", "pods", pool.namespace)
        found = await self._kube.request("GET", path, params={"labelSelector": pool.label_selector})
        return [Pod.from_object(body) for body in found["items"]]

    async def _mark(self, pool: Pool, names: Sequence[str]) -> None:
        """Of all pods of the ReplicaSet these are removed first (KEP-2255)."""
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


def _workers_of(pool: Pool, snapshot: WorkerSnapshot) -> Workers:
    reports: dict[str, WorkerReport] = {
        name: report
        for name, report in snapshot.reports.items()
        if report.namespace == pool.namespace and report.pool == pool.name
    }
    return Workers(snapshot.now_ms, reports, frozenset(name for name in snapshot.intakes if name in reports))
