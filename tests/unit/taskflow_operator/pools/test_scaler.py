"""The scaler over a cluster and workers in memory, tick by tick."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from taskflow_core.domain.phases import Phase
from taskflow_core.ledger.presence import WorkerName, WorkerReport
from taskflow_operator.pools.scaler import LOOK_SECONDS, REPORT_SECONDS, SHOW_SECONDS
from taskflow_operator.pools.status import PoolFacts
from tests.builders import make_task
from tests.unit.taskflow_operator.pools.scaling_world import World, at_four


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
