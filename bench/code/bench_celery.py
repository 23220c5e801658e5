"""A bare Celery worker, as the floor of the latency: it says when its task started, and nothing else."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery

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
    """Record when it started."""
    _client.hset("bare:started", name, time.time())
