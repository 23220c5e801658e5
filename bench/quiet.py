"""Latency of Tasks of a quiet namespace, created one after the other, under different loads."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from bench.machine import load, percentile
from bench.own_stack import say
from bench.tasks import body, create, until_finished
from taskflow_core.kube.client import KubeClient

NAMESPACE = "default"
SAMPLES, PAUSE_SECONDS = 100, 0.2


@dataclass
class Sample:
    """Milliseconds from the create request to its response, to the handler, and to the end in the status."""

    created: list[float] = field(default_factory=list)
    started: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)


async def measure(kube: KubeClient, mark: str, until: asyncio.Future[Any] | None = None) -> Sample:
    """Measure `SAMPLES` Tasks, or as many as fit until the deadline."""
    sample = Sample()
    while (until is None and len(sample.started) < SAMPLES) or (until is not None and not until.done()):
        name, sent = f"{mark}-{len(sample.started)}", time.time()
        await create(kube, NAMESPACE, body(name, "bench.stamp"))
        sample.created.append((time.time() - sent) * 1000)
        done = await until_finished(kube, NAMESPACE, [name])
        sample.finished.append((time.time() - sent) * 1000)
        sample.started.append((done[name]["status"]["result"] - sent) * 1000)
        await asyncio.sleep(PAUSE_SECONDS)
    return sample


def head(title: str) -> None:
    """Print the head of the table."""
    say(f"\n{title}; Tasks of a quiet namespace one by one, ms and ratio to idle")
    say(f"{'':<32}{'create':>25}{'to the handler':>25}{'to Succeeded':>25}")
    say(f"{'':<26}{'Tasks':>6}" + f"{'p50':>9}{'p99':>9}{'ratio':>7}" * 3 + "   load")


def show(what: str, sample: Sample, idle: Sample) -> None:
    """Print one line of the table."""
    columns = [
        f"{statistics.median(mine):>9.1f}{percentile(mine, 0.99):>9.1f}"
        f"{statistics.median(mine) / statistics.median(its):>7.2f}"
        for mine, its in (
            (sample.created, idle.created),
            (sample.started, idle.started),
            (sample.finished, idle.finished),
        )
    ]
    say(f"{what:<26}{len(sample.started):>6}" + "".join(columns) + f"   {load()}")
