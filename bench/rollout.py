"""`python -m bench.rollout`: a new template for a pool under 500 running Tasks; about 2 minutes.

Uses real Deployments, 5 pods of 100 threads, and Tasks of 5 to 20 s that all run when the rollout begins. Fails if a
Task failed or needed another attempt.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from typing import Any

from bench.machine import load
from bench.own_stack import own_stack, say
from bench.tasks import body, create, each, until_finished
from taskflow_core.domain import naming
from taskflow_core.kube.client import MERGE_PATCH, KubeClient, resource_path
from taskflow_local.stack import Stack

COUNT = int(os.environ.get("N", "500"))
SEED = int(os.environ.get("SEED", "1"))
PODS = 5
GRACE_SECONDS = 60
POOLS = f"apis/{naming.API_VERSION}"
POOL = resource_path(POOLS, "workerpools", "default", "rollout")


def spec(version: str) -> dict[str, Any]:
    """Spec of the pool, with a template that contains a version."""
    env = {"TASKFLOW_WORKER_HANDLERS": "bench_handlers", "VERSION": version}
    container = {"name": "worker", "env": [{"name": name, "value": value} for name, value in env.items()]}
    return {
        "queues": ["rollout"],
        "pool": "Threads",
        "concurrency": -(-COUNT // PODS),
        "replicas": PODS,
        "template": {"spec": {"terminationGracePeriodSeconds": GRACE_SECONDS, "containers": [container]}},
    }


async def until(kube: KubeClient, **wanted: int) -> None:
    """Wait until the pool's status has these numbers."""
    while True:
        status = (await kube.request("GET", POOL)).get("status") or {}
        if all(status.get(name) == number for name, number in wanted.items()):
            return
        await asyncio.sleep(0.2)


async def pods(kube: KubeClient) -> set[str]:
    """Names of the pool's pods, including terminating ones."""
    path = resource_path("api/v1", "pods", "default")
    found = await kube.request("GET", path, params={"labelSelector": f"{naming.LABEL_POOL}=rollout"})
    return {item["metadata"]["name"] for item in found["items"]}


async def measure(stack: Stack) -> int:
    """Start the Tasks, roll out, and count the results."""
    kube = await KubeClient.connect()
    made = {
        "apiVersion": naming.API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": "rollout"},
        "spec": spec("1"),
    }
    await kube.request("POST", resource_path(POOLS, "workerpools", "default"), made)
    slots = PODS * -(-COUNT // PODS)
    await until(kube, slots=slots)
    gate, draw = stack.folder.root / "gate", random.Random(SEED)
    names = [f"rollout-{number}" for number in range(COUNT)]
    tasks = [
        body(name, "bench.sleep_behind", queue="rollout", args=[str(gate), round(draw.uniform(5, 20), 2)])
        for name in names
    ]

    async def one(task: dict[str, Any]) -> None:
        await create(kube, "default", task)

    await each(tasks, one, 16)
    await until(kube, busySlots=COUNT)
    former = await pods(kube)
    began = time.monotonic()
    await kube.request("PATCH", POOL, {"spec": spec("2")}, content_type=MERGE_PATCH)
    gate.touch()
    say(f"load {load()}; {COUNT} Tasks of 5-20 s run in {PODS} pods of {slots // PODS} threads, seed {SEED}: rollout")
    done = await until_finished(kube, "default", names)
    ended = time.monotonic() - began
    while former & await pods(kube):
        await asyncio.sleep(0.2)
    rolled = time.monotonic() - began
    phases = Counter(found["status"]["phase"] for found in done.values())
    extra = sum(found["status"]["attempt"] - 1 for found in done.values())
    say(f"all ended after {ended:.0f} s, the last old pod was gone after {rolled:.0f} s")
    say(f"phases {dict(phases)}, extra attempts {extra}")
    await kube.close()
    return 0 if phases == {"Succeeded": COUNT} and extra == 0 else 1


def main() -> int:
    """Start, measure, stop."""
    with own_stack() as stack:
        return asyncio.run(measure(stack))


if __name__ == "__main__":
    sys.exit(main())
