"""`python -m bench.fairness`: what one namespace's queued Tasks cost another's next one. Starts a stack of its own; 8 minutes for 50,000."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from dataclasses import dataclass, field

from bench.__main__ import POOL
from bench.machine import load, percentile
from bench.own_stack import own_stack, say
from bench.tasks import body, create, each, until_finished
from taskflow_core.domain import naming
from taskflow_core.kube.client import KubeClient

COUNT = int(os.environ.get("N", "50000"))
SAMPLES, RATE = 100, 5.0
AT_ONCE = 16
RESYNC_SECONDS = 10
"""All open Tasks are held against the ledger several times while Tasks are measured, and not each minute."""
CROWD = "crowd"


@dataclass
class Sample:
    """Milliseconds of some Tasks: the request that creates them, from its start to the handler, and to the end in the resource."""

    created: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)


async def measure(kube: KubeClient, mark: str, until: asyncio.Future[None] | None = None) -> Sample:
    """One Task after the other of a namespace that has no other: `SAMPLES` of them, or until then."""
    sample = Sample()
    while (until is None and len(sample.started) < SAMPLES) or (until is not None and not until.done()):
        name, sent = f"{mark}-{len(sample.started)}", time.time()
        await create(kube, "default", body(name, "bench.stamp", ttlSecondsAfterFinished=600))
        sample.created.append((time.time() - sent) * 1000)
        done = await until_finished(kube, "default", [name])
        sample.finished.append((time.time() - sent) * 1000)
        sample.started.append((done[name]["status"]["result"] - sent) * 1000)
        await asyncio.sleep(1 / RATE)
    return sample


def show(what: str, sample: Sample, idle: Sample) -> None:
    """One line of the table."""
    columns = [
        f"{statistics.median(mine):>9.1f}{percentile(mine, 0.99):>9.1f}{statistics.median(mine) / statistics.median(its):>7.2f}"
        for mine, its in (
            (sample.created, idle.created),
            (sample.started, idle.started),
            (sample.finished, idle.finished),
        )
    ]
    say(f"{what:<26}{len(sample.started):>6}" + "".join(columns) + f"   {load()}")


async def compare() -> None:
    """Idle, while the crowd's Tasks are created, and once all of them are queued."""
    kube = await KubeClient.connect()
    pools = f"/apis/{naming.API_VERSION}/namespaces"
    await kube.request("POST", f"{pools}/default/workerpools", POOL)
    crowded = {**POOL, "spec": {**POOL["spec"], "queues": ["crowded"], "replicas": 0}}  # type: ignore[dict-item]
    await kube.request("POST", f"{pools}/{CROWD}/workerpools", crowded)
    await create(kube, "default", body("warm-up", "bench.noop"))
    await until_finished(kube, "default", ["warm-up"])

    async def one(number: int) -> None:
        await create(kube, CROWD, body(f"crowd-{number}", "bench.noop", queue="crowded"))

    say(f"\n{COUNT:,} queued Tasks of one namespace; Tasks of another, one by one, ms and ratio to idle")
    say(f"{'':<32}{'create':<25}{'to the handler':<25}{'to Succeeded':<25}")
    say(f"{'the crowd':<26}{'Tasks':>6}" + f"{'p50':>9}{'p99':>9}{'ratio':>7}" * 3 + "   load")
    idle = await measure(kube, "idle")
    show("is not there", idle, idle)
    growing = asyncio.ensure_future(each(range(COUNT), one, AT_ONCE))
    show("is being created", await measure(kube, "growing", growing), idle)
    await growing
    show("is queued", await measure(kube, "queued"), idle)
    await kube.close()


def main() -> int:
    """Start, measure, stop."""
    with own_stack(TASKFLOW_RESYNC_SECONDS=str(RESYNC_SECONDS)) as stack:
        stack.add_namespace(CROWD)
        asyncio.run(compare())
    return 0


if __name__ == "__main__":
    sys.exit(main())
