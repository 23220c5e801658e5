"""`python -m bench.fairness`: the effect of one namespace's queued Tasks on another namespace.

Starts its own stack; 8 minutes for 50,000 Tasks.
"""

from __future__ import annotations

import asyncio
import os
import sys

from bench.own_stack import own_stack
from bench.pools import make_pools
from bench.quiet import head, measure, show
from bench.tasks import body, create, each, settle
from taskflow_core.kube.client import KubeClient

COUNT = int(os.environ.get("N", "50000"))
AT_ONCE = 16
CROWD = "crowd"


async def compare() -> None:
    """Measure when idle, while the crowd's Tasks are created, while their status is written, and afterwards."""
    kube = await KubeClient.connect()
    await make_pools(kube, CROWD)

    async def one(number: int) -> None:
        await create(kube, CROWD, body(f"crowd-{number}", "bench.noop", queue="crowded"))

    head(f"{COUNT:,} queued Tasks of one namespace")
    idle = await measure(kube, "idle")
    show("none", idle, idle)
    growing = asyncio.ensure_future(each(range(COUNT), one, AT_ONCE))
    show("while they are created", await measure(kube, "growing", growing), idle)
    await growing
    show("while that is written", await measure(kube, "written", asyncio.ensure_future(settle(kube, CROWD))), idle)
    show("once they are queued", await measure(kube, "queued"), idle)
    await kube.close()


def main() -> int:
    """Start, measure, stop."""
    with own_stack() as stack:
        stack.add_namespace(CROWD)
        asyncio.run(compare())
    return 0


if __name__ == "__main__":
    sys.exit(main())
