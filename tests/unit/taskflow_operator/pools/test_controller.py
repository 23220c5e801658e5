"""A pool whose deletion nobody told of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

from taskflow_core.kube.client import Page
from taskflow_operator.pools.controller import PoolController
from taskflow_operator.pools.served_queues import ServedQueues


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
        cast("Any", api), ServedQueues(), image="w", lease_seconds=15, changed=changed.append, events=cast("Any", None)
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
