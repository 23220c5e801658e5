"""`python -m bench.retention`: what the deletion of finished Tasks costs those that run. Starts a stack of its own; 25 minutes for 100,000.

The finished Tasks are made by hand while the operator does not run, all of them over their time to live. Then Redis is emptied, so that
the operator has to mirror them before it may delete them: each needs its row in the history first.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import redis.asyncio

from bench.__main__ import POOL
from bench.own_stack import own_stack, say
from bench.quiet import head, measure, show
from bench.tasks import body, create, each, until_finished
from taskflow_core.domain import naming
from taskflow_core.domain.phases import FINISHED_SELECTOR
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_local.stack import Stack

COUNT = int(os.environ.get("N", "100000"))
AT_ONCE = 16
PAST = "past"
"""Their namespace."""
ENDED = "2026-01-01T00:00:00Z"
STATUS: dict[str, Any] = {
    "phase": "Succeeded",
    "observedGeneration": 1,
    "attempt": 1,
    "startTime": ENDED,
    "completionTime": ENDED,
    "conditions": [
        {
            "type": kind,
            "status": "True",
            "reason": "Succeeded",
            "message": "",
            "lastTransitionTime": ENDED,
            "observedGeneration": 1,
        }
        for kind in ("Accepted", "Complete", "Finished")
    ],
}


async def finish(kube: KubeClient) -> None:
    """Tasks that ended long ago."""

    async def one(number: int) -> None:
        made = await create(kube, PAST, body(f"past-{number}", "bench.noop", ttlSecondsAfterFinished=0))
        await kube.patch_task_status(PAST, made["metadata"]["name"], made["metadata"]["uid"], STATUS)

    await each(range(COUNT), one, AT_ONCE)


async def until_deleted(kube: KubeClient) -> None:
    """Wait until none of them is left."""
    while True:
        params = {"limit": "1", "fieldSelector": FINISHED_SELECTOR}
        if not (await kube.request("GET", tasks_path(PAST), params=params))["items"]:
            return
        await asyncio.sleep(0.5)


async def compare(stack: Stack) -> None:
    """While they are deleted, and then without them."""
    kube = await KubeClient.connect()
    await kube.request("POST", f"/apis/{naming.API_VERSION}/namespaces/default/workerpools", POOL)
    await create(kube, "default", body("warm-up", "bench.noop"))
    await until_finished(kube, "default", ["warm-up"])
    head(f"{COUNT:,} finished Tasks")
    idle = await measure(kube, "idle")
    show("none", idle, idle)
    await asyncio.to_thread(stack.stop, "operator")
    await finish(kube)
    async with redis.asyncio.Redis.from_url(stack.env()["TASKFLOW_REDIS_URL"]) as client:
        await client.flushall()
    await asyncio.to_thread(stack.start, "operator")
    began = time.monotonic()
    deleting = asyncio.ensure_future(until_deleted(kube))
    show("while they are deleted", await measure(kube, "deleting", deleting), idle)
    await deleting
    seconds = time.monotonic() - began
    say(f"archived and deleted in {seconds:.0f} s, {COUNT / seconds:.0f}/s")
    await kube.close()


def main() -> int:
    """Start, measure, stop."""
    with own_stack() as stack:
        stack.add_namespace(PAST)
        asyncio.run(compare(stack))
    return 0


if __name__ == "__main__":
    sys.exit(main())
