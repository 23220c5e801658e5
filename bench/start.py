"""`python -m bench.start`: time from exec of a cold worker process to its first handler; about 2 minutes.

Starts its own stack. The Task is queued before any worker exists, so all of the time is the worker's: the
interpreter, imports, settings, the fork of its pool, the first fetch and the claim.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.machine import TICK, load
from bench.own_stack import own_stack, say
from bench.pools import make_pool
from bench.tasks import body, create, until_finished
from taskflow_core.domain import naming
from taskflow_core.kube.client import MERGE_PATCH, KubeClient, resource_path
from taskflow_local.stack import Stack

ROUNDS = int(os.environ.get("ROUNDS", "7"))
_GROUP = f"apis/{naming.API_VERSION}"


def workers(stack: Stack) -> dict[int, float]:
    """The main processes of workers and when each was started, in seconds since the epoch (to 10 ms)."""
    boot = next(
        int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime")
    )
    found: dict[int, tuple[int, float]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            ours = str(stack.folder.pods).encode() in (path / "environ").read_bytes()
            if not ours or b"taskflow_worker" not in (path / "cmdline").read_bytes():
                continue
            fields = (path / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        found[int(path.name)] = int(fields[1]), boot + int(fields[19]) / TICK
    return {pid: since for pid, (parent, since) in found.items() if parent not in found}


async def scale(kube: KubeClient, replicas: int) -> None:
    """Set the number of pods of the pool."""
    path = resource_path(_GROUP, "workerpools", "default", "bench")
    await kube.request("PATCH", path, {"spec": {"replicas": replicas}}, content_type=MERGE_PATCH)


async def until_none(stack: Stack) -> None:
    """Wait until no worker is left."""
    while workers(stack):
        await asyncio.sleep(0.1)


async def measure(stack: Stack) -> None:
    """Measure one cold worker after the other."""
    kube = await KubeClient.connect()
    await make_pool(kube, "default", replicas=0)
    found: list[float] = []
    for number in range(ROUNDS):
        name = f"first-{number}"
        await create(kube, "default", body(name, "bench.stamp"))
        await scale(kube, 1)
        done = await until_finished(kube, "default", [name])
        (since,) = workers(stack).values()
        found.append(done[name]["status"]["result"] - since)
        say(f"load {load()}; {found[-1]:.2f} s from exec to the handler")
        await scale(kube, 0)
        await until_none(stack)
    say(f"median {statistics.median(found):.2f} s, most {max(found):.2f} s")
    await kube.close()


def imports() -> float:
    """Seconds that an interpreter needs to import the worker's entry point; the minimum of five."""
    times: list[float] = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import taskflow_worker.__main__"], check=True)
        times.append(time.monotonic() - began)
    return min(times)


def main() -> int:
    """Start, measure, stop."""
    say(f"{imports():.2f} s for the interpreter and the imports of the worker's entry point")
    with own_stack() as stack:
        asyncio.run(measure(stack))
    return 0


if __name__ == "__main__":
    sys.exit(main())
