"""`python -m bench.flush`: time from `FLUSHALL` until all open Tasks are queued again; about 2 minutes.

Uses the default settings. The Tasks wait in the queue of a pool without pods, so each of them stays open and has to
return to the ledger and to its queue.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from typing import Any

import redis.asyncio

from bench.machine import load
from bench.own_stack import own_stack, say
from bench.tasks import body, create, each
from taskflow_core.domain import naming
from taskflow_core.kube.client import KubeClient
from taskflow_local.stack import Stack

POOLS = f"/apis/{naming.API_VERSION}/namespaces/default/workerpools"
COUNT = int(os.environ.get("N", "2000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))


async def all_queued(client: redis.asyncio.Redis) -> None:
    """Wait until each Task has an entry in the ledger and a message."""
    lists = naming.queue_lists("default", ["nobody"])
    while True:
        async with client.pipeline(transaction=False) as pipe:
            pipe.zcard(naming.keys_of("default").ledger)
            for name in lists:
                pipe.llen(name)
            entries, *messages = await pipe.execute()
        if entries == COUNT and sum(messages) >= COUNT:
            return
        await asyncio.sleep(0.02)


async def measure(stack: Stack) -> None:
    """Create the Tasks, flush, wait; several rounds."""
    kube = await KubeClient.connect()
    client = redis.asyncio.Redis.from_url(stack.env()["TASKFLOW_REDIS_URL"])

    async def one(task: dict[str, Any]) -> None:
        await create(kube, "default", task)

    pool = {"metadata": {"name": "nobody"}, "spec": {"queues": ["nobody"], "replicas": 0}}
    await kube.request("POST", POOLS, {"apiVersion": naming.API_VERSION, "kind": "WorkerPool", **pool})
    tasks = [body(f"open-{number}", "taskflow.echo", queue="nobody", args=[1]) for number in range(COUNT)]
    await each(tasks, one, 16)
    await all_queued(client)
    found = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        await client.flushall()
        await all_queued(client)
        found.append(time.monotonic() - began)
        say(f"load {load()}; {COUNT:,} open Tasks, all queued again {found[-1]:.1f} s after FLUSHALL")
    say(f"median {statistics.median(found):.1f} s, most {max(found):.1f} s")
    await client.aclose()
    await kube.close()


def main() -> int:
    """Start, measure, stop."""
    with own_stack() as stack:
        asyncio.run(measure(stack))
    return 0


if __name__ == "__main__":
    sys.exit(main())
