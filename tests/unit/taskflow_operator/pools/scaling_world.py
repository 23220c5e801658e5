"""A cluster and workers in memory for the scaler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.ledger.presence import WorkerName, WorkerReport, WorkerSnapshot
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.pools.demand import DemandView
from taskflow_operator.pools.scaler import DELETION_COST, Scaler
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.pools.worker_slots import WorkerSlots
from taskflow_operator.runtime.demand_signal import DemandSignal
from taskflow_operator.runtime.event_recorder import Regarding
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.work_queue import WorkQueue
from tests.builders import NOW, NOW_MS, make_task
from tests.unit.taskflow_operator.fakes import FakeClock

SCALING = {"maxReplicas": 4, "minReplicas": 0, "scaleDownDelaySeconds": 10, "idleSecondsToZero": 20}


@dataclass
class Cluster:
    """Deployment and pods of one pool; a lower number removes pods by their deletion cost, as a ReplicaSet does."""

    replicas: int = 0
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    made: int = 0
    down: bool = False

    def deployment(self) -> dict[str, Any]:
        return {
            "metadata": {"uid": "d", "generation": 1, "namespace": "team-a"},
            "spec": {"replicas": self.replicas},
            "status": {"replicas": len(self.pods), "readyReplicas": len(self.pods), "updatedReplicas": len(self.pods)},
        }

    def settle(self) -> None:
        while len(self.pods) < self.replicas:
            self.made += 1
            name = f"main-workers-1-{self.made}"
            meta = {"name": name, "uid": name, "creationTimestamp": (NOW - timedelta(hours=2)).isoformat()}
            self.pods[name] = {"metadata": meta, "status": {"phase": "Running"}}
        while len(self.pods) > self.replicas:
            name = min(self.pods, key=lambda each: (self.cost(each), each))
            del self.pods[name]
            self.removed.append(name)

    def cost(self, name: str) -> int:
        return int(self.pods[name]["metadata"].get("annotations", {}).get(DELETION_COST, 0))

    async def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "", params: Any = None
    ) -> dict[str, Any]:
        if self.down:
            raise Unavailable("API server: down")
        name = path.rpartition("/")[2]
        if path.endswith("/pods"):
            return {"items": list(self.pods.values())}
        if "/pods/" in path and method == "PATCH":
            if name not in self.pods:
                raise NotFound(name)
            self.pods[name]["metadata"] |= body["metadata"]
        elif "/pods/" in path and method == "DELETE":
            del self.pods[name]
            self.removed.append(name)
        elif "/deployments/" in path:
            if method == "PATCH":
                self.replicas = body["spec"]["replicas"]
            return self.deployment()
        elif path.endswith("/status"):
            self.status = body[1]["value"]
        return {}

    async def apply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.replicas = body["spec"]["replicas"]
        return self.deployment()


@dataclass
class View:
    """What the workers say: those of all pods report, unless said otherwise; the asked ones obey."""

    cluster: Cluster
    now_ms: int = NOW_MS
    busy: dict[str, int] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    deaf_ears: set[str] = field(default_factory=set)
    """They do not hear that they are asked to stop."""
    intakes: dict[str, str] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)

    others: dict[WorkerName, WorkerReport] = field(default_factory=dict)
    """Reports of other namespaces' workers."""
    asked: list[WorkerName] = field(default_factory=list)
    """All that were ever asked to stop, or forgotten."""

    async def snapshot(self, namespaces: Sequence[str], lists: Sequence[str]) -> WorkerSnapshot:
        assert namespaces == ["team-a"]
        reports = {
            WorkerName("team-a", name): WorkerReport(
                namespace="team-a",
                pool="main",
                queues=("default",),
                slots=1,
                busy=self.busy.get(name, 0),
                serving=name not in self.intakes or name in self.deaf_ears,
                claimed_ms=None,
                at_ms=self.now_ms - (90_000 if name in self.silent else 0),
            )
            for name in self.cluster.pods
        }
        intakes = {WorkerName("team-a", name): value for name, value in self.intakes.items()}
        return WorkerSnapshot(self.now_ms, reports | self.others, intakes, dict.fromkeys(lists, 0))

    async def stop_intake(self, workers: Sequence[WorkerName]) -> None:
        self.asked += workers
        self.intakes |= {each.name: "stop" for each in workers}

    async def resume_intake(self, workers: Sequence[WorkerName]) -> None:
        for each in workers:
            self.intakes.pop(each.name, None)

    async def forget(self, workers: Sequence[WorkerName]) -> None:
        self.asked += workers
        self.forgotten += [each.name for each in workers]
        await self.resume_intake(workers)


@dataclass
class Recorded:
    """The Events: reason and note."""

    all: list[tuple[str, str]] = field(default_factory=list)

    def note(self, about: Regarding, reason: str, note: str, *, action: str) -> None:
        assert (about.kind, about.name, bool(action)) == ("WorkerPool", "main", True)
        self.all.append((reason, note))

    warn = note


class World:
    def __init__(self, **spec: Any) -> None:
        self.now, self.made = NOW, 0
        self.clock = FakeClock()
        self.tasks, self.cluster = OpenTasks(), Cluster()
        self.work_queue = WorkQueue(now=lambda: self.now)
        self.view = View(self.cluster)
        kube = cast("Any", self.cluster)
        self.queues = ServedQueues()
        self.events = Recorded()
        self.keeper = PoolController(
            kube,
            self.queues,
            image="w",
            lease_seconds=15,
            lease_name="one/taskflow-operator",
            changed=lambda _: None,
            events=cast("Any", self.events),
        )
        self.chunks = 0, 0
        self.slots = WorkerSlots()
        demand = DemandView(self.tasks, self.work_queue, lambda *_: self.chunks, lambda: self.now)
        self.scaler = Scaler(
            self.keeper,
            kube,
            cast("Any", self.view),
            demand,
            DemandSignal(self.clock),
            self.slots,
            now=lambda: self.now,
            clock=self.clock,
        )
        self.spec = {"queues": ["default"], "scaling": SCALING} | spec

    def body(self, **spec: Any) -> dict[str, Any]:
        self.spec |= spec
        meta = {"uid": "p", "namespace": "team-a", "name": "main", "generation": 1}
        return {"metadata": meta, "spec": self.spec, "status": self.cluster.status}

    async def change(self, **spec: Any) -> None:
        body = self.body(**spec)
        self.keeper.observe(body)
        await self.keeper.apply(body)
        self.cluster.settle()

    def queue(self, count: int) -> None:
        for _ in range(count):
            self.made += 1
            uid = str(self.made)
            self.tasks.add(make_task(uid=uid, name=uid, phase=Phase.QUEUED, status={"queued_time": self.now}))

    def end_all(self) -> None:
        for known in self.tasks:
            self.tasks.close(known.task.uid, 0)

    async def tick(self, seconds: float = 1) -> int:
        """Let so many seconds pass, one tick each; the number of pods then."""
        for _ in range(int(seconds)):
            self.now += timedelta(seconds=1)
            self.clock.now += 1
            self.view.now_ms += 1000
            await self.scaler._tick()
            self.cluster.settle()
        return len(self.cluster.pods)


async def at_four(**spec: Any) -> World:
    world = World(**spec)
    await world.change()
    world.queue(4)
    assert await world.tick() == 4
    return world
