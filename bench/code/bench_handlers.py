from __future__ import annotations

import time
from pathlib import Path

from taskflow_worker.sdk import handler


@handler("bench.stamp")
def stamp() -> float:
    """When it started, in seconds since the epoch."""
    return time.time()


@handler("bench.noop")
def noop() -> None:
    """Nothing."""


@handler("bench.item")
def item(number: int) -> None:
    """Nothing, for an item of an array."""


@handler("bench.sleep")
def sleep(seconds: float) -> None:
    """Takes so long."""
    time.sleep(seconds)


@handler("bench.sleep_behind")
def sleep_behind(gate: str, seconds: float) -> None:
    """Takes so long from the moment when the file is there."""
    while not Path(gate).exists():
        time.sleep(0.5)
    time.sleep(seconds)
