"""A pool whose deletion nobody told of, and what counts as a rollout."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from taskflow_core.kube.client import Page
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.runtime.event_recorder import Regarding

OURS, OTHER = "one/taskflow-operator", "two/taskflow-operator"


class Written:
    """An API server on which status writes succeed."""

    def __init__(self) -> None:
        self.statuses: list[dict[str, Any]] = []

    async def request(self, method: str, path: str, body: Any = None, *, content_type: str = "") -> dict[str, Any]:
        assert (method, path.endswith("/status")) == ("PATCH", True)
        self.statuses.append(next(each["value"] for each in body if each["path"] == "/status"))
        return {}


class Listed:
    """An API server that lists these pools, and does something else meanwhile."""

    def __init__(self) -> None:
        self.pools: list[dict[str, Any]] = []
        self.meanwhile: list[Any] = []

    async def list_pages(self, path: str) -> AsyncIterator[Page]:
        assert path.endswith("/workerpools")
        yield Page(self.pools, "1")
        for act in self.meanwhile:
            act()


def body(uid: str, name: str, queue: str) -> dict[str, Any]:
    meta = {"uid": uid, "namespace": "team-a", "name": name, "generation": 1}
    return {"metadata": meta, "spec": {"queues": [queue]}}


def keeper(api: Listed) -> tuple[PoolController, list[str]]:
    changed: list[str] = []
    made = PoolController(
        cast("Any", api),
        ServedQueues(),
        image="w",
        lease_seconds=15,
        lease_name=OURS,
        changed=changed.append,
        events=cast("Any", None),
    )
    return made, changed


async def test_a_pool_that_is_listed_no_more_serves_no_queue() -> None:
    api = Listed()
    pools, changed = keeper(api)
    pools.observe(body("a", "main", "default"))
    pools.observe(body("b", "late", "other"))
    changed.clear()
    api.pools = [body("a", "main", "default")]
    await pools.list_pools()
    assert pools.served() == {("team-a", "default")}
    assert changed == ["team-a"]


async def test_a_pool_made_while_the_list_was_read_stays() -> None:
    api = Listed()
    pools, _ = keeper(api)
    pools.observe(body("a", "main", "default"))
    api.meanwhile = [
        lambda: pools.observe(body("c", "main", "default")),
        lambda: pools.observe(body("d", "new", "other")),
    ]
    await pools.list_pools()
    assert pools.served() == {("team-a", "default"), ("team-a", "other")}


DEPLOYED = {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}


@pytest.mark.parametrize(
    ("generation", "deployment", "going"),
    [
        (2, DEPLOYED, True),
        (1, DEPLOYED, False),
        (1, DEPLOYED | {"observedGeneration": 1}, True),
        (1, DEPLOYED | {"replicas": 2}, True),
        (1, DEPLOYED | {"replicas": 1, "updatedReplicas": 0}, True),
        (1, DEPLOYED | {"readyReplicas": 0}, False),
    ],
    ids=[
        "the pool's change is not applied yet",
        "settled",
        "the Deployment's change is not acted upon",
        "old pods are left",
        "no new pod yet",
        "a pod of the newest version starts again",
    ],
)
async def test_a_rollout_is_seen_from_the_change_of_the_pool_to_its_last_old_pod(
    generation: int, deployment: dict[str, Any], going: bool
) -> None:
    queues = ServedQueues()
    pools = PoolController(
        cast("Any", Written()),
        queues,
        image="w",
        lease_seconds=15,
        lease_name=OURS,
        changed=lambda _: None,
        events=cast("Any", None),
    )
    pools.observe(body("a", "main", "default") | {"status": {"observedGeneration": 1}})
    kept = pools.pools["team-a", "main"]
    meta = {"generation": 2, "uid": "d"}
    kept.found = replace(kept.found, deployment={"metadata": meta, "spec": {}, "status": deployment})
    await pools.show(kept)
    if generation > 1:
        changed = body("a", "main", "default") | {"status": dict(kept.status)}
        changed["metadata"]["generation"] = generation
        pools.observe(changed)
    found = queues.rollout("team-a", "default")
    assert found is not None
    assert (found.pool, found.going) == ("main", going)


class Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def warn(self, about: Regarding, reason: str, note: str, *, action: str) -> None:
        self.told.append((about.name, reason))


async def test_each_of_two_operators_over_one_pool_sees_the_other_and_says_so() -> None:
    api, events = Written(), Events()
    pools = PoolController(
        cast("Any", api),
        ServedQueues(),
        image="w",
        lease_seconds=15,
        lease_name=OURS,
        changed=lambda _: None,
        events=cast("Any", events),
    )
    # The mark of an operator that may be gone is replaced, once in a while, and nothing is said.
    pools.observe(body("a", "main", "default") | {"status": {"operator": OTHER}})
    kept = pools.pools["team-a", "main"]
    await pools.show(kept)
    assert (kept.status["operator"], events.told) == (OURS, [])
    # One that replaces ours is at work.
    for _ in range(3):
        pools.observe(body("a", "main", "default") | {"status": {**kept.status, "operator": OTHER}})
        await pools.show(kept, mark=True)
    assert events.told == [("main", "ServedTwice")]
    (told,) = [each for each in api.statuses[-1]["conditions"] if each["type"] == "SoleOperator"]
    assert (told["status"], told["reason"]) == ("False", "ServedTwice")
    assert f"the operator of Lease {OTHER} serves this pool too" in told["message"]


async def test_another_mark_alone_is_written_over_only_when_that_is_asked_for() -> None:
    api = Written()
    pools = PoolController(
        cast("Any", api),
        ServedQueues(),
        image="w",
        lease_seconds=15,
        lease_name=OURS,
        changed=lambda _: None,
        events=cast("Any", Events()),
    )
    pools.observe(body("a", "main", "default"))
    kept = pools.pools["team-a", "main"]
    await pools.show(kept)
    kept.status = {**kept.status, "operator": OTHER}
    await pools.show(kept)
    assert len(api.statuses) == 1
    await pools.show(kept, mark=True)
    assert api.statuses[1]["operator"] == OURS
    await pools.show(kept, mark=True)
    assert len(api.statuses) == 2
