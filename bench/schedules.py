"""`python -m bench.schedules`: what schedules cost, and how late their Tasks are created.

First the decision alone, in this process. Then a stack of its own: memory and CPU of an operator with N schedules that
are not due, and the delay from a tick to its Task when DUE schedules have a tick in the same second. The floor is this
process, which makes the same requests as fast as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.machine import load, percentile, usage
from bench.own_stack import own_stack, say
from bench.tasks import each, watch
from taskflow_core.domain import naming
from taskflow_core.domain.manifests import run_manifest
from taskflow_core.domain.resource import rfc3339
from taskflow_core.domain.taskschedule import TaskSchedule
from taskflow_core.kube.client import JSON_PATCH, KubeClient, resource_path, status_patch, tasks_path
from taskflow_local.stack import Stack
from taskflow_operator.schedules.rules.plan import plan
from taskflow_operator.schedules.rules.runs import Run

NUMBER = int(os.environ.get("N", "10000"))
"""Schedules that are not due."""
DUE = int(os.environ.get("DUE", "1000"))
"""Schedules with a tick in the same second."""
NAMESPACE = "bench"
QUIET_SECONDS = 20
AT_ONCE = 16
SCHEDULES = resource_path(f"apis/{naming.API_VERSION}", TaskSchedule.PLURAL, NAMESPACE)


def manifest(name: str, **timing: Any) -> dict[str, Any]:
    """A schedule of a small Task."""
    return {
        "apiVersion": naming.API_VERSION,
        "kind": "TaskSchedule",
        "metadata": {"name": name},
        "spec": {**timing, "taskTemplate": {"spec": {"handler": "bench.noop"}}},
    }


def idle(number: int) -> dict[str, Any]:
    """A schedule with a line of its own that is not due today."""
    day = datetime.now(UTC) + timedelta(days=100 + number % 200)
    return manifest(f"idle-{number}", schedules=[f"H H {min(day.day, 28)} {day.month} *"], timeZone="Europe/Berlin")


def decided(number: int, lines: list[str]) -> TaskSchedule:
    """A schedule as the operator knows it, with the status of its latest decision."""
    body = manifest(f"s-{number}", schedules=lines, timeZone="Europe/Berlin")
    body["metadata"] |= {"uid": f"uid-{number}", "namespace": NAMESPACE, "creationTimestamp": "2026-01-01T00:00:00Z"}
    schedule = TaskSchedule.from_object(body)
    return schedule.model_copy(update={"status": plan(schedule, [], datetime(2026, 6, 1, tzinfo=UTC)).status})


def timed(what: str, work: Callable[[], object], times: int) -> None:
    """Print the CPU of one call."""
    began = time.process_time()
    for _ in range(times):
        work()
    say(f"  {what:<58}{(time.process_time() - began) / times * 1e6:>10.0f} us")


def decisions() -> None:
    """Print what the decision costs."""
    say("the decision, CPU in this process")
    nightly, now = decided(0, ["H 2 * * *"]), datetime(2026, 6, 1, 12, tzinfo=UTC)
    timed("no tick is due, daily", lambda: plan(nightly, [], now), 2000)
    timed("a tick is due, daily", lambda: plan(nightly, [], now + timedelta(days=1)), 2000)
    minutely = decided(1, ["* * * * *"])
    last = minutely.status.cursor or now
    timed("a tick is due, each minute", lambda: plan(minutely, [], last + timedelta(minutes=1)), 2000)
    timed("three years were missed, each minute", lambda: plan(minutely, [], last + timedelta(days=1096)), 20)
    tracemalloc.start()
    kept = [decided(number, ["H H * * *"]) for number in range(500)]
    say(f"  {'memory of a schedule with its status':<58}{tracemalloc.get_traced_memory()[0] / len(kept):>10.0f} bytes")
    tracemalloc.stop()


async def until_decided(kube: KubeClient, count: int) -> None:
    """Wait until so many schedules have a status."""
    while True:
        seen = 0
        async for page in kube.list_pages(SCHEDULES):
            seen += sum("status" in body for body in page.items)
        if seen >= count:
            return
        await asyncio.sleep(2)


async def quiet(stack: Stack) -> tuple[float, float]:
    """Share of a core and MiB that the operator takes while nothing happens."""
    await asyncio.sleep(5)
    before, began = usage(stack)["operator"], time.monotonic()
    await asyncio.sleep(QUIET_SECONDS)
    after = usage(stack)["operator"]
    return (after.cpu - before.cpu) / (time.monotonic() - began), after.resident / 2**20


async def idle_cost(stack: Stack, kube: KubeClient) -> None:
    """Print what schedules cost that are not due."""
    cpu, memory = await quiet(stack)
    say(f"\n{'schedules':>10}{'operator % CPU':>16}{'MiB':>8}   load")
    say(f"{0:>10}{cpu * 100:>16.2f}{memory:>8.0f}   {load()}")

    async def create(number: int) -> None:
        await kube.request("POST", SCHEDULES, idle(number))

    await each(range(NUMBER), create, AT_ONCE)
    await until_decided(kube, NUMBER)
    cpu, memory = await quiet(stack)
    say(f"{NUMBER:>10}{cpu * 100:>16.2f}{memory:>8.0f}   {load()}")


async def see(kube: KubeClient, seen: dict[str, float], prefix: str) -> None:
    """Note when a bare watch shows each new Task."""
    version = (await kube.request("GET", tasks_path(NAMESPACE), params={"limit": "1"}))["metadata"]["resourceVersion"]
    async for event in watch(kube, NAMESPACE, version):
        name = event["object"]["metadata"].get("name", "")
        if event["type"] == "ADDED" and name.startswith(prefix):
            seen.setdefault(name, time.time())


async def all_seen(seen: dict[str, float], kind: str) -> None:
    """Wait until every Task of a round was shown."""
    while len(seen) < DUE:
        await asyncio.sleep(0.1)
    assert len(seen) == DUE, f"{kind}: expected {DUE} Tasks, found {len(seen)}"


def row(kind: str, delays: list[float], cpu: str) -> None:
    """One line of the table."""
    say(
        f"{kind:<22}{statistics.median(delays) * 1000:>10.0f}{percentile(delays, 0.99) * 1000:>10.0f}"
        f"{max(delays) * 1000:>10.0f}{cpu:>18}   {load()}"
    )


async def floor(kube: KubeClient) -> float:
    """The same requests, made at once by this process: a Task and a status for each schedule. Returns its seconds."""
    schedules: list[TaskSchedule] = []

    async def create(number: int) -> None:
        far = manifest(f"floor-{number}", every={"seconds": 31_536_000}, suspend=True)
        schedules.append(TaskSchedule.from_object(await kube.request("POST", SCHEDULES, far)))

    await each(range(DUE), create, AT_ONCE)
    seen: dict[str, float] = {}
    watching = asyncio.create_task(see(kube, seen, "floor-"))
    await until_decided(kube, NUMBER + DUE)
    tick = datetime.now(UTC).replace(microsecond=0)

    async def run(schedule: TaskSchedule) -> None:
        one = Run(f"{schedule.name}.{tick:%Y%m%dt%H%M%Sz}", tick, tick, None, None)
        await kube.request("POST", tasks_path(NAMESPACE), run_manifest(schedule, one))
        status = schedule.status.model_copy(update={"cursor": tick})
        path = f"{SCHEDULES}/{schedule.name}/status"
        await kube.request("PATCH", path, status_patch(schedule.uid, status.to_object()), content_type=JSON_PATCH)

    began = time.time()
    await each(schedules, run, AT_ONCE)
    await all_seen(seen, "floor")
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    row("the same requests", [at - began for at in seen.values()], "")
    return max(seen.values()) - began


async def burst(stack: Stack, kube: KubeClient) -> None:
    """Print how late the Tasks of one tick of many schedules are created."""
    say(f"\n{DUE} ticks in the same second{'':<3}p50 ms    p99 ms    max ms   operator CPU ms   load")
    seconds = await floor(kube)
    # Late enough for all to be there and decided on before their tick: as many requests again, and a margin.
    tick = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=int(20 + 2 * seconds))

    async def create(number: int) -> None:
        timing = {"every": {"seconds": 86_400, "anchor": rfc3339(tick)}}
        await kube.request("POST", SCHEDULES, manifest(f"due-{number}", **timing))

    await each(range(DUE), create, AT_ONCE)
    await until_decided(kube, NUMBER + 2 * DUE)
    seen: dict[str, float] = {}
    watching = asyncio.create_task(see(kube, seen, "due-"))
    left = tick.timestamp() - time.time()
    assert left > 1, f"the schedules were decided on {-left:.0f} s after their tick"
    await asyncio.sleep(left - 0.5)
    before = usage(stack)["operator"].cpu
    await all_seen(seen, "due")
    cpu = (usage(stack)["operator"].cpu - before) / DUE * 1000
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    row("from tick to Task", [at - tick.timestamp() for at in seen.values()], f"{cpu:.2f} a tick")


async def measure(stack: Stack) -> None:
    """Everything on real servers."""
    kube = await KubeClient.connect()
    try:
        await idle_cost(stack, kube)
        await burst(stack, kube)
    finally:
        await kube.close()


def main() -> int:
    """Measure the decision, then start, measure, stop."""
    decisions()
    with own_stack(TASKFLOW_STATUS_WRITES_PER_SECOND="10000") as stack:
        stack.add_namespace(NAMESPACE)
        asyncio.run(measure(stack))
    return 0


if __name__ == "__main__":
    sys.exit(main())
