"""WorkerPools that follow their demand, on real Deployments: up at once, down without an interrupted Task."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.own_pool import OwnPool
from tests.e2e.product import Product, eventually, task

DOWN_SECONDS, IDLE_SECONDS = 3, 4
SCALING = {"maxReplicas": 4, "scaleDownDelaySeconds": DOWN_SECONDS, "idleSecondsToZero": IDLE_SECONDS}


@pytest.fixture
def own(product: Product, request: pytest.FixtureRequest) -> Iterator[OwnPool]:
    pool = OwnPool(product, str(request.param[0]), **request.param[1])
    yield pool
    product.kubectl("delete", "tft", "--all", "--wait=false")
    product.kubectl("delete", "tfp", pool.name)
    eventually(pool.pods, lambda pods: pods == [])


def scaled(name: str, **spec: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("own", [(name, {"scaling": SCALING} | spec)], indirect=True, ids=[name])


@scaled("burst")
def test_from_zero_to_the_maximum_and_back_with_each_task_run_once(own: OwnPool) -> None:
    own.has(0)
    lengths = random.Random(5)
    names = own.run(*(round(lengths.uniform(0.05, 2), 2) for _ in range(40)))
    own.has(4)
    status = eventually(own.status, lambda found: found.get("busySlots", 0) > 0)
    assert (status["desiredReplicas"], status["lastDecision"]["replicas"]) == (4, 4)
    own.all_ran_once(names)
    own.has(0)
    status = eventually(own.status, lambda found: found["desiredReplicas"] == found["replicas"] == found["slots"] == 0)
    assert status["lastDecision"]["reason"] == "Demand"


@scaled("long")
def test_the_pod_that_still_works_stays_until_it_has_ended(own: OwnPool) -> None:
    gate = own.product.folder / "long.gate"
    own.product.apply(
        task("long-holds", "e2e.wait_for_file", queue="long", args=[str(own.record), str(gate)]),
    )
    holds = own.product.in_phase("long-holds", "Running")["status"]["worker"].partition(":")[0]
    short = own.run(*[0.5] * 8)
    own.has(4)
    for name in short:
        own.product.finished(name)
    own.has(1)
    assert own.pods() == [holds]
    gate.touch()
    own.all_ran_once(["long-holds", *short])
    own.has(0)


@scaled("paused", scaling=None, replicas=2)
def test_a_paused_pool_takes_nothing_and_says_so_to_those_who_wait(own: OwnPool) -> None:
    eventually(own.status, lambda found: found.get("slots") == 2)
    own.change(paused=True)
    eventually(own.serving, lambda found: found == [False, False])
    names = own.run(0.1, 0.1, 0.1)
    found = eventually(
        lambda: own.product.task(names[0]), lambda each: "is paused" in each.get("status", {}).get("message", "")
    )
    assert found["status"]["phase"] == "Queued"
    assert own.executions() == Counter()
    assert len(own.pods()) == 2
    own.change(paused=False)
    own.all_ran_once(names)


@scaled("drained", scaling=None, replicas=2)
def test_a_pool_that_drains_ends_what_it_runs_and_goes(own: OwnPool) -> None:
    gate = own.product.folder / "drained.gate"
    own.product.apply(task("drained-holds", "e2e.wait_for_file", queue="drained", args=[str(own.record), str(gate)]))
    own.product.in_phase("drained-holds", "Running")
    own.change(drain=True)
    own.has(1)
    late = own.run(0.1)
    eventually(lambda: own.product.task(late[0]), lambda each: "drains" in each.get("status", {}).get("message", ""))
    gate.touch()
    own.product.finished("drained-holds")
    own.has(0)
    assert own.product.task(late[0])["status"]["phase"] == "Queued"
    own.change(drain=False)
    own.all_ran_once(["drained-holds", *late])


@scaled("rollout", scaling=None, replicas=2, concurrency=2)
def test_a_rollout_in_the_middle_costs_no_attempt(own: OwnPool) -> None:
    names = own.run(*[4.0] * 12)
    eventually(own.executions, lambda found: sum(found.values()) >= 4)
    before = set(own.pods())
    own.change({"VERSION": "2"})
    eventually(own.pods, lambda pods: len(pods) == 2 and not before & set(pods), 120)
    own.all_ran_once(names)
