"""`python -m bench.rest`: reads and creates through the REST API against their minimum cost; about a minute.

Starts its own servers. Reads are compared with bare FastAPI routes in a separate process (bench.bare), creates with
the same Tasks sent to the API server itself. All kinds are measured in turn, so that other load of the machine
affects all of them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import aiohttp
import redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.bare import KEY
from bench.machine import load, of_component, of_process
from bench.own_stack import own_stack, say
from bench.pages import filled
from bench.tasks import body, create, each
from taskflow_core.kube.client import KubeClient
from taskflow_core.store.engine import transaction
from taskflow_local.stack import Stack

AIM = 0.8
ROUNDS, READS, CREATES, AT_ONCE = 5, 300, 60, 8
NAMES = [f"read-{number}" for number in range(8)]
TASKS = "/v1/namespaces/default/tasks"

Cpu = Callable[[], float]
Work = Callable[[int], Awaitable[None]]


class Kind:
    """One kind of request: how to send it, and which process's CPU to measure."""

    def __init__(self, work: Work, count: int, cpu: Cpu) -> None:
        self.work, self.count, self.cpu = work, count, cpu
        self.rates: list[float] = []
        self.costs: list[float] = []

    async def measure(self) -> None:
        """Run one round."""
        before, began = self.cpu(), time.monotonic()
        await each(range(self.count), self.work, AT_ONCE)
        self.rates.append(self.count / (time.monotonic() - began))
        self.costs.append((self.cpu() - before) / self.count * 1e6)


def _fetch(
    session: aiohttp.ClientSession, url: str, expected: int = 200, **headers: str
) -> Callable[[], Awaitable[bytes]]:
    async def fetch() -> bytes:
        async with session.get(url, headers=headers) as response:
            read = await response.read()
            if response.status != expected:
                raise RuntimeError(f"{url}: {response.status}: {read.decode()}")
            return read

    return fetch


def _read(session: aiohttp.ClientSession, urls: list[str]) -> Work:
    async def work(number: int) -> None:
        await _fetch(session, urls[number % len(urls)])()

    return work


async def _unchanged(session: aiohttp.ClientSession, url: str) -> Work:
    async with session.get(url) as response:
        tag = response.headers["ETag"]
    fetch = _fetch(session, url, 304, **{"If-None-Match": tag})

    async def work(_: int) -> None:
        await fetch()

    return work


def _creates(session: aiohttp.ClientSession, kube: KubeClient, url: str, forward: str) -> tuple[Work, Work, Work]:
    numbers = itertools.count()

    async def post(url: str, sent: dict[str, Any]) -> None:
        async with session.post(url, json=sent) as response:
            if response.status != 201:  # noqa: PLR2004 - HTTP's own
                raise RuntimeError(f"{response.status}: {await response.text()}")
            await response.read()

    def task() -> dict[str, Any]:
        return body(f"made-{next(numbers)}", "taskflow.echo")

    async def facade(_: int) -> None:
        await post(url, {"name": f"made-{next(numbers)}", "spec": {"handler": "taskflow.echo"}})

    async def forwarded(_: int) -> None:
        await post(forward, task())

    async def direct(_: int) -> None:
        await create(kube, "default", task())

    return facade, forwarded, direct


async def _until_up(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(300):
        try:
            await _fetch(session, url)()
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url} did not come up")


async def kinds(
    stack: Stack, session: aiohttp.ClientSession, kube: KubeClient, bare: str, bare_cpu: Cpu
) -> dict[str, Kind]:
    """The kinds of requests, by name."""
    base = stack.env()["TASKFLOW_API_URL"] + TASKS
    facade, forwarded, direct = _creates(session, kube, base, f"{bare}/create")

    def api() -> float:
        return of_component(stack, "api").cpu

    return {
        "bare, bytes": Kind(_read(session, [f"{bare}/bytes"]), READS, bare_cpu),
        "bare, model": Kind(_read(session, [f"{bare}/model"]), READS, bare_cpu),
        "bare, Redis": Kind(_read(session, [f"{bare}/redis"]), READS, bare_cpu),
        "get": Kind(_read(session, [f"{base}/{name}" for name in NAMES]), READS, api),
        "get, 304": Kind(await _unchanged(session, f"{base}/{NAMES[0]}"), READS, api),
        "list of 10": Kind(_read(session, [f"{base}?limit=10"]), READS, api),
        "create": Kind(facade, CREATES, api),
        "bare, create": Kind(forwarded, CREATES, bare_cpu),
        "create, API server": Kind(direct, CREATES, lambda: of_component(stack, "kube-apiserver").cpu),
    }


async def run(stack: Stack) -> int:
    """Measure in turn and print a table; the exit code says whether the aims are met."""
    env = stack.env()
    kube = await KubeClient.connect()
    history: AsyncEngine = await filled(env["TASKFLOW_DATABASE_URL"], 1000)
    async with transaction(history) as connection:
        # The client of the stack may list in this namespace.
        await connection.execute(text("UPDATE tasks SET namespace = 'default'"))
    await history.dispose()
    for name in NAMES:
        await create(kube, "default", body(name, "taskflow.echo"))
    headers = {"Authorization": f"Bearer {env['TASKFLOW_API_TOKEN']}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        raw = await _fetch(session, f"{env['TASKFLOW_API_URL']}{TASKS}/{NAMES[0]}")()
        shown = stack.folder.root / "task.json"
        shown.write_bytes(raw)
        with redis.Redis.from_url(env["TASKFLOW_REDIS_URL"]) as client:
            client.set(KEY, raw)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = [sys.executable, "-m", "bench.bare", str(port), str(shown)]
        with subprocess.Popen(arguments, env={**os.environ, "REDIS_URL": env["TASKFLOW_REDIS_URL"]}) as process:
            try:
                bare = f"http://127.0.0.1:{port}"
                await _until_up(session, f"{bare}/bytes")
                found = await kinds(stack, session, kube, bare, lambda: of_process(process.pid).cpu)
                for _ in range(ROUNDS):
                    for kind in found.values():
                        await kind.measure()
            finally:
                process.terminate()
    await kube.close()
    return report(found)


def report(found: dict[str, Kind]) -> int:
    """Print the medians of the rounds."""
    say(f"median of {ROUNDS} rounds, {AT_ONCE} at a time; load {load()}")
    say(f"{'':22}{'per second':>12}{'CPU us each':>13}")
    for name, kind in found.items():
        say(f"{name:22}{median(kind.rates):12.0f}{median(kind.costs):13.0f}")

    def ratio(name: str, floor: str) -> float:
        # Ratios within the same round.
        return median(one / other for one, other in zip(found[name].rates, found[floor].rates, strict=True))

    ratios = {
        "get / bare route": ratio("get", "bare, model"),
        "get 304 / bare route": ratio("get, 304", "bare, model"),
        "create / API server": ratio("create", "create, API server"),
    }
    for name, value in ratios.items():
        say(f"{name}: {value:.2f} (aim: {AIM})")
    say(f"compare: a bare route that asks Redis reaches {ratio('bare, Redis', 'bare, model'):.2f} of one without,")
    say(f"and one that only forwards a create {ratio('bare, create', 'create, API server'):.2f} of the API server")
    return 0 if min(ratios.values()) >= AIM else 1


def main() -> int:
    """Start, measure, stop; return 1 if the aims are not met."""
    components = ("etcd", "kube-apiserver", "redis", "postgres", "minio", "api")
    # Requests are counted as usual, but the limit is never reached.
    with own_stack(components, TASKFLOW_LIMITS_CALLER_PER_MINUTE="10000000") as stack:
        stack.apply_crds()
        return asyncio.run(run(stack))


if __name__ == "__main__":
    sys.exit(main())
