"""Handlers of the benchmarks."""

from __future__ import annotations

import time
from pathlib import Path

from taskflow_worker.sdk import handler


@handler("bench.stamp")
def stamp() -> float:
    """Return the start time, in seconds since the epoch."""
    return time.time()


@handler("bench.noop")
def noop() -> None:
    """Do nothing."""


@handler("bench.item")
def item(number: int) -> None:
    """Do nothing for an item of an array."""


@handler("bench.sleep")
def sleep(seconds: float) -> None:
    """Sleep for this long."""
    time.sleep(seconds)


@handler("bench.sleep_behind")
def sleep_behind(gate: str, seconds: float) -> None:
    """Sleep for this long after the file exists."""
    while not Path(gate).exists():
        time.sleep(0.5)
    time.sleep(seconds)
