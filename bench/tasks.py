"""Tasks of the benchmarks: create them at a rate, and wait for their states."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import aiohttp

from taskflow_core.domain import naming
from taskflow_core.kube.client import KubeClient, tasks_path

STARTED_HASH = "bare:started"


def body(name: str, handler: str, **spec: Any) -> dict[str, Any]:
    """A minimal Task; `spec` adds fields."""
    return {
        "apiVersion": naming.API_VERSION,
        "kind": "Task",
        "metadata": {"name": name},
        "spec": {"handler": handler, **spec},
    }


async def each(items: Iterable[Any], work: Callable[[Any], Awaitable[None]], at_once: int) -> None:
    """Do the work for all items, with this many in parallel."""
    queue = list(items)[::-1]

    async def worker() -> None:
        while queue:
            await work(queue.pop())

    await asyncio.gather(*(worker() for _ in range(at_once)))


async def create(kube: KubeClient, namespace: str, task: dict[str, Any]) -> dict[str, Any]:
    """Create one Task."""
    return await kube.request("POST", tasks_path(namespace), task)


async def paced(count: int, per_second: float, work: Callable[[int], Awaitable[None]]) -> None:
    """Start the work items at this rate, whether or not the previous ones have ended."""
    start = time.monotonic()
    running = []
    for number in range(count):
        await asyncio.sleep(max(start + number / per_second - time.monotonic(), 0))
        running.append(asyncio.ensure_future(work(number)))
    await asyncio.gather(*running)


async def watch(kube: KubeClient, namespace: str, version: str, selector: str = "") -> AsyncIterator[dict[str, Any]]:
    """The events of a bare watch with a field selector: the minimum cost of reacting to Tasks."""
    # The client's own session and credential, so that both sides of a ratio use the same connection.
    token = await kube._configuration.get_api_key_with_prefix("BearerToken")  # noqa: SLF001
    async with kube._session.get(  # noqa: SLF001
        tasks_path(namespace),
        params={"watch": "true", "resourceVersion": version, "fieldSelector": selector},
        headers={"Authorization": token},
        timeout=aiohttp.ClientTimeout(total=None),
    ) as response:
        response.raise_for_status()
        async for line in response.content:
            yield json.loads(line)


async def settle(kube: KubeClient, namespace: str) -> None:
    """Wait until every Task has a phase. Polls rarely, because each list makes the API server scan all Tasks."""
    params = {"fieldSelector": "status.phase=", "limit": "1"}
    while (await kube.request("GET", tasks_path(namespace), params=params))["items"]:
        await asyncio.sleep(2)


async def until_finished(kube: KubeClient, namespace: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return all these Tasks once finished. Uses a watch, because polling would be most of the server's work."""
    wanted = set(names)
    # For a single Task, watch only it: reading all others would take longer than the Task.
    selector = f"metadata.name={names[0]}" if len(names) == 1 else ""
    found: dict[str, dict[str, Any]] = {}

    def take(item: dict[str, Any]) -> None:
        phase = (item.get("status") or {}).get("phase")
        if item["metadata"]["name"] in wanted and phase in ("Succeeded", "Failed"):
            found[item["metadata"]["name"]] = item

    listed = await kube.request("GET", tasks_path(namespace), params={"fieldSelector": selector})
    for item in listed["items"]:
        take(item)
    if len(found) < len(wanted):
        async for event in watch(kube, namespace, listed["metadata"]["resourceVersion"], selector):
            take(event["object"])
            if len(found) == len(wanted):
                break
    return found
