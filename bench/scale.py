"""`python -m bench.scale`: the effect of thousands of open Tasks, or of rows of the history, on other Tasks.

Starts its own stack; 20 minutes for 100,000 suspended Tasks, 20 more for as many queued ones, 5 for a million rows.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from typing import Any

from bench.machine import load, percentile, usage
from bench.own_stack import own_stack, say
from bench.pages import filled
from bench.pools import make_pools
from bench.tasks import body, create, each, paced, settle, until_finished
from taskflow_core.kube.client import KubeClient
from taskflow_local.stack import Stack

SIZES = tuple(int(part) for part in os.environ.get("SIZES", "0,1000,10000,100000").split(","))
"""Numbers of open Tasks of another namespace, measured in this order."""
HISTORIES = tuple(int(part) for part in os.environ.get("HISTORIES", "1000,100000,1000000").split(",") if part)
"""Numbers of rows of the history, measured before any Task is open."""
SUSPENDED, QUEUED, ROWS = "suspended", "queued", "rows"
KINDS = tuple(os.environ.get("KINDS", f"{SUSPENDED},{QUEUED}").split(","))
"""Kinds of open Tasks; the second kind is added to the first."""
SAMPLES, RATE = 100, 10.0
BURST = 1000
AT_ONCE = 16
CROWD = "crowd"


async def latency(kube: KubeClient, mark: str) -> list[float]:
    """POST to handler start of Tasks in a namespace with few Tasks, in ms."""
    sent: dict[str, float] = {}

    async def one(number: int) -> None:
        name = f"{mark}-{number}"
        sent[name] = time.time()
        await create(kube, "default", body(name, "bench.stamp", ttlSecondsAfterFinished=60))

    await paced(SAMPLES, RATE, one)
    done = await until_finished(kube, "default", list(sent))
    return [(done[name]["status"]["result"] - when) * 1000 for name, when in sent.items()]


async def burst(kube: KubeClient, mark: str) -> float:
    """No-op Tasks per second, created as fast as the API server accepts them."""
    names = [f"{mark}-{number}" for number in range(BURST)]

    async def one(name: str) -> None:
        await create(kube, "default", body(name, "bench.noop", ttlSecondsAfterFinished=60))

    start = time.monotonic()
    await each(names, one, AT_ONCE)
    await until_finished(kube, "default", names)
    return BURST / (time.monotonic() - start)


async def grow(kube: KubeClient, kind: str, numbers: range) -> None:
    """Create more open Tasks in the crowd's namespace."""
    spec: dict[str, Any] = {"suspend": True} if kind == SUSPENDED else {"queue": "crowded"}

    async def one(number: int) -> None:
        await create(kube, CROWD, body(f"{kind}-{number}", "bench.noop", **spec))

    await each(numbers, one, AT_ONCE)


async def restart(stack: Stack, kube: KubeClient, mark: str) -> float:
    """Seconds from the start of a new operator to the end of a Task that was created while none ran."""
    await asyncio.to_thread(stack.stop, "operator")
    await create(kube, "default", body(mark, "bench.noop"))
    begin = time.monotonic()
    started = asyncio.create_task(asyncio.to_thread(stack.start, "operator"))
    await until_finished(kube, "default", [mark])
    seconds = time.monotonic() - begin
    await started
    return seconds


async def look(stack: Stack, kube: KubeClient, kind: str, size: int) -> None:
    """Print one line of the table."""
    mark = f"{kind}-{size}"
    values = await latency(kube, f"{mark}-latency")
    rate = await burst(kube, f"{mark}-burst")
    resident = usage(stack)
    seconds = await restart(stack, kube, f"{mark}-restart")
    again = usage(stack)["operator"].resident
    say(
        f"{kind:<11}{size:>8}{statistics.median(values):>9.1f}{percentile(values, 0.99):>9.1f}"
        f"{rate:>9.0f}{seconds:>10.1f}"
        f"{resident['operator'].resident / 2**20:>10.0f}{again / 2**20:>10.0f}"
        f"{resident['kube-apiserver'].resident / 2**20:>12.0f}{resident['redis'].resident / 2**20:>8.0f}   {load()}"
    )


async def measure(stack: Stack) -> None:
    """Measure a growing history, then suspended Tasks by size, then the same with queued Tasks in addition."""
    kube = await KubeClient.connect()
    await make_pools(kube, CROWD)
    say(
        f"\n{'what':<11}{'number':>8}{'p50 ms':>9}{'p99 ms':>9}{'Tasks/s':>9}{'restart s':>10}"
        f"{'RSS MiB':>10}{'restarted':>10}{'API server':>12}{'Redis':>8}   load"
    )
    former = 0
    for size in HISTORIES:
        await (await filled(stack.env()["TASKFLOW_DATABASE_URL"], size, former)).dispose()
        await look(stack, kube, ROWS, size)
        former = size
    for kind in KINDS:
        former = 0
        for size in SIZES:
            if size or kind == KINDS[0]:
                await grow(kube, kind, range(former, size))
                await settle(kube, CROWD)
                await look(stack, kube, kind, size)
                former = size
    await kube.close()


def main() -> int:
    """Start, measure, stop."""
    with own_stack(TASKFLOW_STATUS_WRITES_PER_SECOND="10000") as stack:
        stack.add_namespace(CROWD)
        asyncio.run(measure(stack))
    return 0


if __name__ == "__main__":
    sys.exit(main())
