"""`python -m bench.scaling`: a burst scales a pool from zero to ten pods and back; about 6 minutes.

Our side is real: its own stack, real Deployments, workers and Tasks. The other side, KEDA with an HPA, is simulated
from the same trace (`bench.elsewhere`), with the pod start time that was measured here.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bench.elsewhere import simulate
from bench.machine import load, percentile
from bench.own_stack import own_stack, say
from bench.tasks import body, create, until_finished
from taskflow_core.domain import naming
from taskflow_core.kube.client import KubeClient, resource_path

COUNT = int(os.environ.get("N", "2000"))
SEED = int(os.environ.get("SEED", "1"))
SLOTS, MOST, SPREAD_SECONDS = 8, 10, 60.0
ROUNDS = 20
POOLS = f"apis/{naming.API_VERSION}"


def pool(name: str, slots: int, **scaling: int) -> dict[str, Any]:
    """A WorkerPool with its own queue."""
    env = [{"name": "TASKFLOW_WORKER_HANDLERS", "value": "bench_handlers"}]
    return {
        "apiVersion": naming.API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {
            "queues": [name],
            "concurrency": slots,
            "scaling": scaling,
            "template": {"spec": {"containers": [{"name": "worker", "env": env}]}},
        },
    }


def trace() -> list[tuple[float, float]]:
    """(arrival, duration) of each Task, by arrival. Durations are log-uniform from 0.1 to 20 s."""
    draw = random.Random(SEED)
    lengths = [math.exp(draw.uniform(math.log(0.1), math.log(20))) for _ in range(COUNT)]
    return sorted((draw.uniform(0, SPREAD_SECONDS), round(length, 2)) for length in lengths)


async def replicas(kube: KubeClient, name: str) -> int:
    """Number of pods in the spec of the pool's Deployment."""
    found = await kube.request("GET", resource_path("apis/apps/v1", "deployments", "default", f"{name}-workers"))
    return int(found["spec"].get("replicas", 1))


async def reactions(kube: KubeClient) -> list[float]:
    """Milliseconds from the creation of a Task for an empty pool to its patched Deployment, polled every 5 ms."""
    await kube.request(
        "POST",
        resource_path(POOLS, "workerpools", "default"),
        pool("cold", 1, maxReplicas=1, scaleDownDelaySeconds=0, idleSecondsToZero=0),
    )
    found = []
    for number in range(ROUNDS):
        while True:
            try:
                if await replicas(kube, "cold") == 0:
                    break
            except Exception:  # noqa: BLE001 - it does not exist yet
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.2)
        began = time.monotonic()
        await create(kube, "default", body(f"cold-{number}", "bench.sleep", queue="cold", args=[0.0]))
        while await replicas(kube, "cold") == 0:
            await asyncio.sleep(0.005)
        found.append((time.monotonic() - began) * 1000)
        await until_finished(kube, "default", [f"cold-{number}"])
    await kube.request("DELETE", resource_path(POOLS, "workerpools", "default", "cold"))
    return found


async def burst(kube: KubeClient, arrivals: Sequence[tuple[float, float]]) -> tuple[list[dict[str, Any]], list[int]]:
    """Run the trace; return the finished Tasks, and the wanted number of pods in each second until it is zero."""
    await kube.request(
        "POST",
        resource_path(POOLS, "workerpools", "default"),
        pool("burst", SLOTS, maxReplicas=MOST, scaleDownDelaySeconds=15, idleSecondsToZero=20),
    )
    sizes: list[int] = []

    async def watch_size() -> None:
        while True:
            await asyncio.sleep(1)
            sizes.append(await replicas(kube, "burst"))

    watching = asyncio.create_task(watch_size())
    start = time.monotonic()
    names = []
    for number, (arrival, seconds) in enumerate(arrivals):
        await asyncio.sleep(max(start + arrival - time.monotonic(), 0))
        names.append(f"burst-{number}")
        await create(kube, "default", body(names[-1], "bench.sleep", queue="burst", args=[seconds]))
    done = await until_finished(kube, "default", names)
    while sizes[-1] > 0:
        await asyncio.sleep(1)
    watching.cancel()
    return [done[name] for name in names], sizes


def waited(found: dict[str, Any]) -> float:
    """Seconds from the creation (whole seconds, as the API server keeps it) to the start."""
    since = datetime.fromisoformat(found["metadata"]["creationTimestamp"])
    return (datetime.fromisoformat(found["status"]["startTime"]) - since).total_seconds()


async def measure() -> None:
    """Measure both sides."""
    kube = await KubeClient.connect()
    reacted = await reactions(kube)
    say(f"\nload {load()}; {ROUNDS} times from a Task for a pool at zero to its patched Deployment, ms")
    say(f"p50 {statistics.median(reacted):.0f}   p99 {percentile(reacted, 0.99):.0f}   max {max(reacted):.0f}")
    arrivals = trace()
    found, sizes = await burst(kube, arrivals)
    waits = [max(waited(each), 0) for each in found]
    extra = sum(each["status"]["attempt"] - 1 for each in found)
    failed = sum(each["status"]["phase"] != "Succeeded" for each in found)
    first = min(waits[:10])
    other = simulate(arrivals, slots=SLOTS, most=MOST, start_seconds=max(first, 1.0), seed=SEED)
    say(
        f"\nload {load()}; {COUNT} Tasks of 0.1-20 s within {SPREAD_SECONDS:.0f} s,"
        f" 0 to {MOST} pods of {SLOTS} slots, seed {SEED}"
    )
    say(f"{'':<28}{'wait p50':>10}{'wait p99':>10}{'cut':>10}{'s lost':>10}{'never':>10}")
    for name, values, cut, lost, never in (
        ("TaskFlow", waits, extra, 0.0, failed),
        ("KEDA and HPA (simulated)", other.waited, other.killed, other.lost_seconds, other.never),
    ):
        say(
            f"{name:<28}{statistics.median(values):>10.1f}{percentile(values, 0.99):>10.1f}"
            f"{cut:>10}{lost:>10.0f}{never:>10}"
        )
    say(f"pods wanted: at most {max(sizes)}, at the end {sizes[-1]}, {len(sizes)} s in total")
    await kube.close()


def main() -> int:
    """Start, measure, stop."""
    with own_stack():
        asyncio.run(measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
