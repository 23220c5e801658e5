"""The scaler over a cluster and workers in memory, tick by tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, cast

from taskflow_core.domain.phases import Phase
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.ledger.presence import WorkerName, WorkerReport, WorkerSnapshot
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.pools.demand import DemandView
from taskflow_operator.pools.scaler import DELETION_COST, LOOK_SECONDS, REPORT_SECONDS, SHOW_SECONDS, Scaler
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.pools.status import PoolFacts
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


async def test_from_zero_at_the_first_tick_and_back_after_the_delays() -> None:
    world = World()
    await world.change()
    assert await world.tick() == 0
    world.queue(3)
    assert await world.tick() == 3
    assert world.cluster.status["lastDecision"]["reason"] == "Demand"
    assert (world.cluster.status["demand"], world.cluster.status["queued"]) == (3, 3)
    world.end_all()
    assert await world.tick(9) == 3
    assert await world.tick(8) == 1
    assert await world.tick(10) == 0
    assert world.view.intakes == {}


async def test_what_becomes_due_within_seconds_has_its_pod_in_time() -> None:
    world = World()
    await world.change()
    world.tasks.add(make_task(uid="later", phase=Phase.PENDING, not_before=world.now + timedelta(seconds=20)))
    world.work_queue.add_at("later", world.now + timedelta(seconds=20))
    assert await world.tick(14) == 0
    assert await world.tick(1) == 1


async def test_only_pods_that_hold_nothing_go_and_those_that_hold_something_stay() -> None:
    world = await at_four()
    names = sorted(world.cluster.pods)
    world.end_all()
    world.view.busy = {names[3]: 1, names[1]: 1}
    assert await world.tick(40) == 2
    assert sorted(world.cluster.pods) == [names[1], names[3]]
    world.view.busy = {}
    assert await world.tick(5) == 0


async def test_a_pod_goes_only_when_it_says_that_it_takes_nothing_more() -> None:
    world = await at_four()
    world.end_all()
    world.view.deaf_ears = set(world.cluster.pods)
    assert await world.tick(60) == 4
    assert world.cluster.removed == []


async def test_demand_that_comes_back_asks_the_stopped_ones_back() -> None:
    world = await at_four()
    world.end_all()
    world.view.deaf_ears = set(world.cluster.pods)
    await world.tick(30)
    assert world.view.intakes
    world.view.deaf_ears = set()
    world.queue(4)
    assert await world.tick(2) == 4
    assert world.view.intakes == {}


async def test_a_paused_pool_keeps_its_pods_and_takes_nothing() -> None:
    world = await at_four()
    await world.change(paused=True)
    assert await world.tick(3) == 4
    assert set(world.view.intakes) == set(world.cluster.pods)
    assert world.queues.blocked("team-a", "default") == "WorkerPool 'main' is paused and takes nothing new"
    await world.change(paused=False)
    await world.tick(2)
    assert world.view.intakes == {}
    assert world.queues.blocked("team-a", "default") is None


async def test_a_pool_that_drains_lets_busy_pods_end_what_they_hold() -> None:
    world = await at_four()
    busy = min(world.cluster.pods)
    world.view.busy = {busy: 1}
    await world.change(drain=True)
    assert await world.tick(5) == 1
    assert list(world.cluster.pods) == [busy]
    world.view.busy = {}
    assert await world.tick(3) == 0


async def test_after_a_restart_the_pods_that_are_there_stay() -> None:
    world = await at_four()
    again = World()
    again.cluster, again.view.cluster = world.cluster, world.cluster
    again.keeper._kube = again.scaler._kube = cast("Any", world.cluster)
    again.queue(4)
    await again.change()
    assert await again.tick(3) == 4


async def test_without_scaling_the_number_is_the_users_and_figures_are_shown_nevertheless() -> None:
    world = World(scaling=None, replicas=2)
    await world.change()
    world.queue(3)
    assert await world.tick(SHOW_SECONDS + 1) == 2
    status = world.cluster.status
    assert (status["desiredReplicas"], status["queued"], status["slots"]) == (2, 3, 2)
    assert "lastDecision" not in status


async def test_a_pod_that_cannot_start_stalls_its_pool_and_tells_those_who_wait() -> None:
    world = await at_four()
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    for pod in world.cluster.pods.values():
        pod["status"] = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    await world.tick(LOOK_SECONDS + 1)
    stalled = next(each for each in world.cluster.status["conditions"] if each["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "PodsFailing")
    assert "ImagePullBackOff: no such image" in stalled["message"]
    assert "ImagePullBackOff" in (world.queues.blocked("team-a", "default") or "")


async def test_a_pool_without_logins_says_what_to_do_and_so_do_those_who_wait() -> None:
    world = await at_four()
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "taskflow-worker" not found'}
    for pod in world.cluster.pods.values():
        pod["status"] = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    await world.tick(LOOK_SECONDS + 1)
    ready = next(each for each in world.cluster.status["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NoWorkerLogin")
    assert "label the namespace taskflow.dev/workers=enabled, or create the Secret" in ready["message"]
    assert "taskflow.dev/workers=enabled" in (world.queues.blocked("team-a", "default") or "")


async def test_a_worker_that_takes_nothing_or_says_nothing_is_replaced() -> None:
    world = await at_four()
    silent = min(world.cluster.pods)
    world.view.silent = {silent}
    await world.tick(REPORT_SECONDS + LOOK_SECONDS)
    assert world.cluster.removed == [silent]
    assert silent in world.view.forgotten
    assert ("WorkerReplaced", f"pod {silent} did not report for 60 s") in world.events.all
    await world.tick(70)
    assert len(world.cluster.removed) >= 4, "all are deaf: what waits has waited for more than a minute"


async def test_workers_of_two_namespaces_under_one_name_are_not_taken_for_each_other() -> None:
    world = await at_four()
    names = sorted(world.cluster.pods)
    # Theirs are busy, serve, and say that they belong to our pool.
    theirs = WorkerReport(
        namespace="team-b",
        pool="main",
        queues=("default",),
        slots=9,
        busy=9,
        serving=True,
        at_ms=world.view.now_ms + 10**6,
    )
    world.view.others = {WorkerName("team-b", name): theirs for name in names}
    await world.tick(SHOW_SECONDS + 1)
    assert world.cluster.status["slots"] == 4
    assert world.slots.of("team-a", "default") == 4
    world.end_all()
    assert await world.tick(40) == 0
    assert {each.namespace for each in world.view.asked} == {"team-a"}


async def test_the_worker_of_another_namespace_that_is_gone_is_forgotten_there() -> None:
    world = await at_four()
    name = min(world.cluster.pods)
    gone = WorkerReport(namespace="team-b", queues=(), slots=1, busy=0, serving=True, at_ms=0)
    world.view.others = {WorkerName("team-b", name): gone}
    await world.tick()
    assert world.view.asked == [WorkerName("team-b", name)]
    assert len(world.cluster.pods) == 4


async def test_one_pool_at_fault_stops_no_other_and_an_outage_is_outlived() -> None:
    world = World()
    await world.change()
    world.queue(1)
    world.cluster.down = True
    await world.tick(2)
    world.cluster.down = False
    assert await world.tick() == 1
    kept = world.keeper.pools["team-a", "main"]
    world.keeper.pools["team-a", "a-bad-one"] = replace(kept, found=PoolFacts(deployment={"spec": None}))
    world.queue(2)
    assert await world.tick() == 3
