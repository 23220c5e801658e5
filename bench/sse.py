"""`python -m bench.sse`: changes of Tasks sent to many listeners at once; about 2 minutes. N=1000 listeners.

Starts its own API server and REST API. The time is from before a Task is created until each listener has its event.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import aiohttp

from bench.machine import load, of_component, percentile
from bench.own_stack import own_stack, say
from bench.tasks import body, create
from taskflow_core.kube.client import KubeClient
from taskflow_local.stack import Stack

LISTENERS = int(os.environ.get("N", "1000"))
TASKS, PER_SECOND = 50, 5.0
SETTLE_SECONDS = 30.0


async def listen(
    session: aiohttp.ClientSession, url: str, ready: asyncio.Semaphore, told: dict[str, list[float]]
) -> None:
    """Record when the first event of each Task arrives, until cancelled."""
    async with session.get(url) as response:
        if response.status != 200:  # noqa: PLR2004 - HTTP's own
            raise RuntimeError(f"{response.status}: {await response.text()}")
        async for line in response.content:
            if line.startswith(b"event: ready"):
                ready.release()
            elif line.startswith(b'data: {"type":"added"'):
                name = line.partition(b'"name":"')[2].partition(b'"')[0].decode()
                told.setdefault(name, []).append(time.monotonic())


async def run(stack: Stack) -> int:
    """Open all streams, create Tasks at a fixed rate, and print the latencies."""
    env = stack.env()
    kube = await KubeClient.connect()
    told: dict[str, list[float]] = {}
    ready = asyncio.Semaphore(0)
    headers = {"Authorization": f"Bearer {env['TASKFLOW_API_TOKEN']}"}
    url = env["TASKFLOW_API_URL"] + "/v1/namespaces/default/events"
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers, timeout=timeout
    ) as session:
        idle = of_component(stack, "api")
        began = time.monotonic()
        listeners = [asyncio.create_task(listen(session, url, ready, told)) for _ in range(LISTENERS)]
        for _ in range(LISTENERS):
            await asyncio.wait_for(ready.acquire(), 120)
        opened = time.monotonic() - began
        before = of_component(stack, "api")
        created: dict[str, float] = {}
        for number in range(TASKS):
            name = f"told-{number}"
            created[name] = time.monotonic()
            await create(kube, "default", body(name, "taskflow.echo"))
            await asyncio.sleep(max(created[name] + 1 / PER_SECOND - time.monotonic(), 0))
        deadline = time.monotonic() + SETTLE_SECONDS
        while sum(map(len, told.values())) < TASKS * LISTENERS and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        after = of_component(stack, "api")
        failed = [task for task in listeners if task.done()]
        for task in listeners:
            task.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
    await kube.close()
    lags = [(when - created[name]) * 1000 for name, times in told.items() for when in times]
    expected = TASKS * LISTENERS
    say(
        f"{LISTENERS} listeners open after {opened:.1f} s, {(before.resident - idle.resident) / 1e6:.0f} MB;"
        f" load {load()}"
    )
    say(f"{len(lags)} of {expected} events received; {len(failed)} streams ended")
    if lags:
        say(
            f"from create to listener, ms: p50 {percentile(lags, 0.5):.0f},"
            f" p99 {percentile(lags, 0.99):.0f}, max {max(lags):.0f}"
        )
        say(f"API: {(after.cpu - before.cpu) / len(lags) * 1e6:.0f} us of CPU for each event of each listener")
    return 0 if len(lags) == expected and not failed else 1


def main() -> int:
    """Start, measure, stop; return 1 if a listener missed an event."""
    components = ("etcd", "kube-apiserver", "postgres", "minio", "api")
    most = str(LISTENERS)
    with own_stack(components, TASKFLOW_API_STREAMS_PER_CALLER=most, TASKFLOW_API_STREAMS=most) as stack:
        stack.apply_crds()
        return asyncio.run(run(stack))


if __name__ == "__main__":
    sys.exit(main())
