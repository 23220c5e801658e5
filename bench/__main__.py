"""`python -m bench`: latency, throughput and memory. Starts its own stack; about 5 minutes."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

from bench.machine import WORKERS, apart, load, of_process, percentile, usage
from bench.own_stack import own_stack, say
from bench.plain import bare_worker
from bench.pools import SUCCEEDED, make_pool, warm_up
from bench.tasks import STARTED_HASH, body, create, each, paced, until_finished, watch
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_local.stack import Stack

SAMPLES, RATE = 200, 10.0
COUNT, ROUNDS = int(os.environ.get("N", "1000")), 5
MANY = 10_000
"""Total number of Tasks before memory is measured again."""
AT_ONCE = (8, 16, 32)
API_SERVER = ("kube-apiserver", "etcd")


async def plain_celery(stack: Stack) -> float:
    """CPU of a plain worker for a no-op with late acknowledgement, as ours, in ms."""
    count = COUNT * ROUNDS

    def publish() -> None:
        for _ in range(count):
            app.send_task("bare.noop", queue="bare", ignore_result=True)

    async with bare_worker(stack) as (app, client, pid):
        before = of_process(pid).cpu
        await asyncio.to_thread(publish)
        while await client.llen("bare") or await client.hlen("unacked"):
            await asyncio.sleep(0.1)
        return (of_process(pid).cpu - before) / count * 1000


async def latency_floor(stack: Stack, kube: KubeClient) -> list[float]:
    """POST to handler start through a bare watch and one Celery message, in ms; the operator does not run."""
    sent: dict[str, float] = {}

    async def react(version: str) -> None:
        async for event in watch(kube, "floor", version):
            if event["type"] == "ADDED":
                await asyncio.to_thread(publish, event["object"]["metadata"]["name"])

    def publish(name: str) -> None:
        app.send_task("bare.stamp", args=[name], queue="bare", ignore_result=True)

    async def one(number: int) -> None:
        name = f"floor-{number}"
        sent[name] = time.time()
        await create(kube, "floor", body(name, "bench.stamp"))

    async with bare_worker(stack) as (app, client, _):
        listed = await kube.request("GET", tasks_path("floor"))
        watcher = asyncio.create_task(react(listed["metadata"]["resourceVersion"]))
        await paced(SAMPLES, RATE, one)
        while await client.hlen(STARTED_HASH) < SAMPLES and not watcher.done():
            await asyncio.sleep(0.1)
        if watcher.done():
            watcher.result()
        watcher.cancel()
        started = await client.hgetall(STARTED_HASH)
    await kube.request("DELETE", tasks_path("floor"))
    return [(float(started[name]) - when) * 1000 for name, when in sent.items()]


async def latency(kube: KubeClient) -> list[float]:
    """POST to handler start, in ms."""
    sent: dict[str, float] = {}

    async def one(number: int) -> None:
        name = f"latency-{number}"
        sent[name] = time.time()
        await create(kube, "default", body(name, "bench.stamp"))

    await warm_up(kube)
    await paced(SAMPLES, RATE, one)
    done = await until_finished(kube, "default", list(sent))
    return [(done[name]["status"]["result"] - when) * 1000 for name, when in sent.items()]


async def throughput_floor(kube: KubeClient, at_once: int) -> float:
    """Tasks/s of the API writes alone: a create and one status write of the usual size."""

    async def one(number: int) -> None:
        made = await create(kube, "floor", body(f"write-{number}", "bench.noop"))
        await kube.patch_status("tasks", "floor", made["metadata"]["name"], made["metadata"]["uid"], SUCCEEDED)

    start = time.monotonic()
    await each(range(COUNT), one, at_once)
    rate = COUNT / (time.monotonic() - start)
    await kube.request("DELETE", tasks_path("floor"))
    return rate


async def throughput(kube: KubeClient, numbers: Iterator[int], at_once: int, count: int = COUNT) -> float:
    """Tasks/s from the first create to the last Succeeded."""
    names = [f"noop-{number}" for number in itertools.islice(numbers, count)]

    async def one(name: str) -> None:
        await create(kube, "default", body(name, "bench.noop"))

    start = time.monotonic()
    await each(names, one, at_once)
    await until_finished(kube, "default", names)
    return count / (time.monotonic() - start)


async def rounds(kube: KubeClient, numbers: Iterator[int], at_once: int) -> list[float]:
    """Tasks/s of each round. Like the floor, it deletes the Tasks after each round, or the next would read them all."""
    rates = []
    for _ in range(ROUNDS):
        rates.append(await throughput(kube, numbers, at_once))
        await kube.request("DELETE", tasks_path("default"))
    return rates


async def measure(stack: Stack) -> None:
    """Run all measurements; the floors first, before the operator starts."""
    kube = await KubeClient.connect()
    bare_ms = await latency_floor(stack, kube)
    celery_ms = await plain_celery(stack)
    writes = {at_once: await throughput_floor(kube, at_once) for at_once in AT_ONCE}
    best = max(writes, key=lambda at_once: writes[at_once])
    idle = usage(stack)
    floor = [await throughput_floor(kube, best) for _ in range(ROUNDS)]
    bare = usage(stack)
    with apart(stack, *API_SERVER):
        floor_apart = [await throughput_floor(kube, best) for _ in range(ROUNDS)]
    stack.start("operator")
    await make_pool(kube, "default")
    ours_ms = await latency(kube)
    say(f"\nload {load()}; {SAMPLES} Tasks at {RATE:.0f}/s, create -> handler start, ms")
    say(f"{'':<22}{'p50':>8}{'p99':>8}{'max':>8}")
    for name, values in (("TaskFlow", ours_ms), ("floor", bare_ms)):
        shown = (statistics.median(values), percentile(values, 0.99), max(values))
        say(f"{name:<22}" + "".join(f"{value:>8.1f}" for value in shown))
    say(f"{'ratio':<22}{statistics.median(ours_ms) / statistics.median(bare_ms):>8.2f}")
    numbers = itertools.count()
    before = usage(stack)
    ours = await rounds(kube, numbers, best)
    after = usage(stack)
    with apart(stack, *API_SERVER):
        ours_apart = await rounds(kube, numbers, best)
    say(
        f"\nload {load()}; {ROUNDS} times {COUNT} no-op Tasks, create -> Succeeded,"
        f" against create + status write, {best} at once; Tasks/s"
    )
    say(f"{'':<30}{'TaskFlow':>10}{'floor':>10}{'ratio':>8}")
    compare("on the same cores", ours, floor)
    compare("API server, etcd on their own", ours_apart, floor_apart)
    await throughput(kube, numbers, best, MANY)
    many = usage(stack)
    (one,) = (await kube.request("GET", tasks_path("default"), params={"limit": "1"}))["items"]
    say(f"\na finished no-op Task has {len(json.dumps(one, separators=(',', ':'))):,} bytes")
    say(f"\n{'':<22}{'CPU ms per Task':>24}{'resident MiB':>24}   the workers' floor is a plain Celery worker")
    say(f"{'component':<22}{'TaskFlow':>12}{'floor':>12}{'at rest':>12}{f'{MANY:,} Tasks':>14}")
    for name, end in after.items():
        start = before[name]
        floor_ms = (bare[name].cpu - idle[name].cpu) / COUNT / ROUNDS * 1000 if name in idle else 0.0
        say(
            f"{name:<22}{(end.cpu - start.cpu) / COUNT / ROUNDS * 1000:>12.2f}"
            f"{celery_ms if name == WORKERS else floor_ms:>12.2f}"
            f"{start.resident / 2**20:>12.0f}{many[name].resident / 2**20:>14.0f}"
        )
    await kube.close()


def compare(where: str, ours: Sequence[float], floor: Sequence[float]) -> None:
    """Print one line: the medians, our minimum and maximum, and the ratio of the medians."""
    rate, bare = statistics.median(ours), statistics.median(floor)
    say(
        f"{where:<30}{rate:>10.0f}{bare:>10.0f}{rate / bare:>8.2f}"
        f"   {min(ours):.0f} to {max(ours):.0f}, {min(floor):.0f} to {max(floor):.0f}"
    )


def main() -> int:
    """Start, measure, stop."""
    with own_stack(TASKFLOW_STATUS_WRITES_PER_SECOND="10000") as stack:
        stack.stop("operator")
        stack.add_namespace("floor")
        asyncio.run(measure(stack))
    return 0


if __name__ == "__main__":
    sys.exit(main())
