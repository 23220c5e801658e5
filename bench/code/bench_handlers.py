from __future__ import annotations

import time

from taskflow_worker.registry import handler


@handler("bench.stamp")
def stamp() -> float:
    """When it started, in seconds since the epoch."""
    return time.time()


@handler("bench.noop")
def noop() -> None:
    """Nothing."""


@handler("bench.sleep")
def sleep(seconds: float) -> None:
    """Takes so long."""
    time.sleep(seconds)
