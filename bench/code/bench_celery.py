"""A bare Celery worker. It is the floor of the latency, and runs chunks to compare with arrays."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery
from celery.signals import task_postrun

app = Celery("bare", broker=os.environ["TASKFLOW_REDIS_URL"])
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    task_default_queue="bare",
    broker_connection_retry_on_startup=True,
)
_client = redis.Redis.from_url(os.environ["TASKFLOW_REDIS_URL"])


@app.task(name="bare.stamp")  # type: ignore[untyped-decorator]
def stamp(name: str) -> None:
    """Record when the task started."""
    _client.hset("bare:started", name, time.time())


@app.task(name="bare.noop", acks_late=True)  # type: ignore[untyped-decorator]
def noop() -> None:
    """Do nothing."""


@app.task(name="bare.item")  # type: ignore[untyped-decorator]
def item(number: int) -> None:
    """Do nothing for an item of a Celery chunk."""


@app.task(name="bare.loop", acks_late=True)  # type: ignore[untyped-decorator]
def loop(first: int, last: int) -> None:
    """A hand-written chunk: a range and a loop of calls."""
    for number in range(first, last):
        _nothing(number)


def _nothing(number: int) -> None:
    """Do nothing."""


@task_postrun.connect(weak=False)  # type: ignore[untyped-decorator]
def ended(task: object = None, **_: object) -> None:
    """Count chunks that ended."""
    if getattr(task, "name", "") in ("celery.starmap", "bare.loop"):
        _client.incr("bare:ended")
