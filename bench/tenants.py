"""`python -m bench.tenants`: what namespaces cost that have had Tasks, without and with open ones.

Starts its own stack. For each number of namespaces: latency of Tasks in one of them, CPU and memory of the operator and
of Redis while nothing happens. First all namespaces are idle, then each has one suspended Task.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from functools import partial

from bench.machine import load, percentile, usage
from bench.own_stack import own_stack, say
from bench.pools import make_pools
from bench.scale import latency
from bench.tasks import body, create, each
from taskflow_core.kube.client import KubeClient, delete_options, tasks_path
from taskflow_local.stack import Stack

SIZES = tuple(int(part) for part in os.environ.get("SIZES", "1,100,1000").split(","))
"""Numbers of namespaces, measured in this order."""
QUIET_SECONDS = 30
"""How long nothing happens; half a minute has a look at every namespace in it."""
SETTLE_SECONDS = 5
AT_ONCE = 16
CROWD = "crowd"


def name_of(number: int) -> str:
    """Name of a namespace."""
    return f"tenant-{number}"


async def open_up(kube: KubeClient, number: int) -> None:
    """A namespace with a suspended Task."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name_of(number)}}
    await kube.request("POST", "/api/v1/namespaces", namespace)
    await suspend(kube, number)


async def suspend(kube: KubeClient, number: int) -> None:
    """A Task that stays open."""
    await create(kube, name_of(number), body("open", "bench.noop", suspend=True))


async def remove(kube: KubeClient, number: int) -> None:
    """Its Task is gone: the namespace is idle."""
    await kube.request("DELETE", tasks_path(name_of(number), "open"), delete_options())


async def quiet(stack: Stack) -> tuple[float, float]:
    """Shares of a core that the operator and Redis take while nothing happens."""
    await asyncio.sleep(SETTLE_SECONDS)
    before, began = usage(stack), time.monotonic()
    await asyncio.sleep(QUIET_SECONDS)
    after, seconds = usage(stack), time.monotonic() - began
    operator, redis = ((after[name].cpu - before[name].cpu) / seconds for name in ("operator", "redis"))
    return operator, redis


async def look(stack: Stack, kube: KubeClient, kind: str, size: int) -> None:
    """Print one line of the table."""
    operator, redis = await quiet(stack)
    values = await latency(kube, f"{kind}-{size}")
    resident = usage(stack)
    say(
        f"{kind:<8}{size:>8}{statistics.median(values):>9.1f}{percentile(values, 0.99):>9.1f}"
        f"{operator * 100:>13.2f}{redis * 100:>10.2f}"
        f"{resident['operator'].resident / 2**20:>14.0f}{resident['redis'].resident / 2**20:>11.0f}   {load()}"
    )


async def measure(stack: Stack) -> None:
    """Measure a growing number of namespaces, idle and then with an open Task each."""
    kube = await KubeClient.connect()
    await make_pools(kube, CROWD)
    say(
        f"\n{'kind':<8}{'number':>8}{'p50 ms':>9}{'p99 ms':>9}{'operator % CPU':>15}{'Redis':>8}"
        f"{'operator MiB':>14}{'Redis MiB':>11}   load"
    )
    former = 0
    for size in SIZES:
        await each(range(former, size), partial(open_up, kube), AT_ONCE)
        await asyncio.sleep(SETTLE_SECONDS)
        await each(range(former, size), partial(remove, kube), AT_ONCE)
        await look(stack, kube, "idle", size)
        former = size
    former = 0
    for size in SIZES:
        await each(range(former, size), partial(suspend, kube), AT_ONCE)
        await look(stack, kube, "open", size)
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
