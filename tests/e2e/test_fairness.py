"""What one namespace wants done costs another no more than its share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import pytest
import redis

from taskflow_core.domain import naming
from taskflow_core.domain.events import EventKind
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_operator.tasks.dispatcher import BATCH
from tests.e2e.conftest import POOL
from tests.e2e.product import Product, task

pytestmark = pytest.mark.e2e

CROWD = "a-crowd"
"""Before `default` in every list."""
COUNT = 600


async def _create_crowd(pool: Mapping[str, object]) -> None:
    kube = await KubeClient.connect()
    slots = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        async with slots:
            await kube.request("POST", tasks_path(CROWD), task(f"crowd-{number}", "taskflow.echo", queue="crowded"))

    try:
        await kube.request("POST", f"/apis/{naming.API_VERSION}/namespaces/{CROWD}/workerpools", pool)
        await asyncio.gather(*(one(number) for number in range(COUNT)))
    finally:
        await kube.close()


def _queued(product: Product) -> list[str]:
    """Uids of Tasks in the order in which they entered the ledger."""
    with redis.Redis.from_url(product.stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True) as client:
        entries = [each for name in ("default", CROWD) for each in client.xrange(naming.keys_of(name).notes)]
    entries.sort(key=lambda each: [int(part) for part in each[0].split("-")])
    return [fields["uid"] for _, fields in entries if fields["k"] == EventKind.QUEUED]


def test_the_first_task_of_a_namespace_does_not_wait_for_thousands_of_another(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "KUBECONFIG", str(product.stack.kubeconfig))
    product.stack.add_namespace(CROWD)
    nobody = {**POOL, "spec": {**POOL["spec"], "queues": ["crowded"], "replicas": 0}}  # type: ignore[dict-item]
    product.stack.stop("operator")
    try:
        asyncio.run(_create_crowd(nobody))
        # The last of all, and last in the list that the operator reads.
        product.apply(task("the-only-one", "taskflow.echo"))
    finally:
        product.stack.start("operator")
    try:
        found = product.finished("the-only-one")
        assert found["status"]["phase"] == "Succeeded"
        queued = _queued(product)
        crowd_before = queued[: queued.index(found["metadata"]["uid"])]
        assert len(crowd_before) <= 2 * BATCH
    finally:
        product.kubectl("delete", "tft", "--all", "-n", CROWD, "--wait=false")
        product.kubectl("delete", "tfp", "--all", "-n", CROWD)
