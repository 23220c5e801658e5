"""`python -m bench.retention`: the effect of deleting finished Tasks on running Tasks.

Starts its own stack; 25 minutes for 100,000 Tasks. The finished Tasks are created while the operator does not run,
all past their time to live. Then Redis is emptied, so that the operator has to mirror them before it may delete them:
each needs its row in the history first.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import redis.asyncio

from bench.own_stack import own_stack, say
from bench.pools import ENDED, SUCCEEDED, make_pool, warm_up
from bench.quiet import head, measure, show
from bench.tasks import body, create, each
from taskflow_core.domain.phases import FINISHED_SELECTOR
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_local.stack import Stack

COUNT = int(os.environ.get("N", "100000"))
AT_ONCE = 16
PAST = "past"
"""Namespace of the finished Tasks."""
STATUS = SUCCEEDED | {"startTime": ENDED, "completionTime": ENDED}


async def finish(kube: KubeClient) -> None:
    """Create Tasks that ended long ago."""

    async def one(number: int) -> None:
        made = await create(kube, PAST, body(f"past-{number}", "bench.noop", ttlSecondsAfterFinished=0))
        await kube.patch_status("tasks", PAST, made["metadata"]["name"], made["metadata"]["uid"], STATUS)

    await each(range(COUNT), one, AT_ONCE)


async def until_deleted(kube: KubeClient) -> None:
    """Wait until all of them are deleted."""
    while True:
        params = {"limit": "1", "fieldSelector": FINISHED_SELECTOR}
        if not (await kube.request("GET", tasks_path(PAST), params=params))["items"]:
            return
        await asyncio.sleep(0.5)


async def compare(stack: Stack) -> None:
    """Measure during the deletion, and then without the finished Tasks."""
    kube = await KubeClient.connect()
    await make_pool(kube, "default")
    await warm_up(kube)
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
