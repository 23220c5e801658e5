"""`python -m bench.arrays`: a million no-op items in one Task against plain Celery chunks; about two minutes.

The Celery chunks have the same size as the chunks of the array.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
import urllib.request
from typing import Any

import redis.asyncio
from celery import Celery, group

from bench.machine import load, usage
from bench.own_stack import own_stack, say
from bench.plain import bare_worker
from bench.pools import make_pool
from bench.tasks import body, create, until_finished
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_local.stack import Stack

COUNT = int(os.environ.get("N", "1000000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
LOOK_SECONDS = 0.25
WRITTEN = 'taskflow_status_writes_total{result="done"}'


def written(stack: Stack) -> float:
    """Status writes of the operator so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.port('operator')}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(WRITTEN))


async def ours(stack: Stack, kube: KubeClient, name: str) -> dict[str, float]:
    """Run one array and measure it from its creation to its end as a watcher sees it."""
    peaks: list[float] = []
    keys: list[float] = []
    client = redis.asyncio.Redis.from_url(stack.env()["TASKFLOW_REDIS_URL"])

    async def look() -> None:
        while True:
            peaks.append(usage(stack)["operator"].resident / 2**20)
            keys.append(float((await client.info("memory"))["used_memory"]) / 2**20)
            await asyncio.sleep(LOOK_SECONDS)

    before, writes = usage(stack), written(stack)
    looking = asyncio.ensure_future(look())
    began = time.monotonic()
    await create(kube, "default", body(name, "bench.item", array={"count": COUNT}))
    done = await until_finished(kube, "default", [name])
    seconds = time.monotonic() - began
    looking.cancel()
    await client.aclose()
    after = usage(stack)
    array = done[name]["status"]["array"]
    assert array["succeeded"] == COUNT, array
    assert len(json.dumps(done[name]["status"])) < 8 * 1024
    return {
        "rate": COUNT / seconds,
        "seconds": seconds,
        "chunk": array["chunkItems"],
        "writes": (written(stack) - writes) / seconds,
        "rss": before["operator"].resident / 2**20,
        "peak": max(peaks),
        "redis": max(keys) - min(keys),
        **{f"cpu {part}": after[part].cpu - before[part].cpu for part in after},
    }


async def plain(app: Celery, client: Any, chunk: int, *, by_hand: bool) -> float:
    """Items/s of chunks made by Celery (`Task.chunks`), or of ranges with a hand-written loop."""
    starts = range(0, COUNT, chunk)
    await client.delete("bare:ended")

    def publish() -> None:
        if by_hand:
            for first in starts:
                app.send_task("bare.loop", args=[first, min(first + chunk, COUNT)], queue="bare", ignore_result=True)
            return
        signature = app.signature("bare.item")
        star = app.tasks["celery.starmap"]
        pieces = (star.s(signature, [(n,) for n in range(first, min(first + chunk, COUNT))]) for first in starts)
        for piece in group(pieces).tasks:
            piece.apply_async(queue="bare", ignore_result=True)

    began = time.monotonic()
    publishing = asyncio.get_running_loop().run_in_executor(None, publish)
    while int(await client.get("bare:ended") or 0) < len(starts):
        await asyncio.sleep(0.01)
    await publishing
    return COUNT / (time.monotonic() - began)


async def measure(stack: Stack) -> None:
    """Run rounds of all three in turn, so that the load of the machine affects all of them."""
    kube = await KubeClient.connect()
    await make_pool(kube, "default")
    await create(kube, "default", body("warm-up", "bench.item", array={"count": 1000}))
    await until_finished(kube, "default", ["warm-up"])
    found: list[dict[str, float]] = []
    chunks: list[float] = []
    loops: list[float] = []
    async with bare_worker(stack) as (app, client, _):
        # Start both before anything is measured.
        await plain(app, client, COUNT // 4, by_hand=True)
        for number in range(ROUNDS):
            found.append(await ours(stack, kube, f"items-{number}"))
            size = int(found[-1]["chunk"])
            chunks.append(await plain(app, client, size, by_hand=False))
            loops.append(await plain(app, client, size, by_hand=True))
            one = found[-1]
            say(
                f"load {load()}; chunk of {size}: TaskFlow {one['rate']:,.0f} items/s in {one['seconds']:.1f} s; "
                f"Celery chunks {chunks[-1]:,.0f}; bare loop {loops[-1]:,.0f}"
            )
    report(found, chunks, loops)
    await kube.request("DELETE", tasks_path("default"))
    await kube.close()


def report(found: list[dict[str, float]], chunks: list[float], loops: list[float]) -> None:
    """Print the medians."""
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    say(f"\nload {load()}; {COUNT:,} no-op items, median of {len(found)} rounds, 2 processes")
    say(f"{'TaskFlow':<28}{middle['rate']:>12,.0f} items/s   creation -> Succeeded at a watcher")
    for name, rates in (("Celery's own chunks", chunks), ("range and loop, by hand", loops)):
        rate = statistics.median(rates)
        say(f"{name:<28}{rate:>12,.0f} items/s   ratio {middle['rate'] / rate:.2f}")
    say(f"{'status writes':<28}{middle['writes']:>12.1f} per second")
    say(f"{'operator':<28}{middle['rss']:>12.0f} MiB before, {max(one['peak'] for one in found):.0f} at most")
    say(f"{'Redis':<28}{middle['redis']:>12.1f} MiB more at most")
    for name, seconds in middle.items():
        if name.startswith("cpu "):
            say(f"{name:<28}{seconds / COUNT * 1e6:>12.2f} us per item")


def main() -> int:
    """Start, measure, stop."""
    with own_stack() as stack:
        asyncio.run(measure(stack))
    return 0


if __name__ == "__main__":
    sys.exit(main())
