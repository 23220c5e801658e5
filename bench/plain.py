"""A plain Celery worker, the floor of the CPU measurement."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio
from celery import Celery

from bench.own_stack import CODE
from bench.tasks import STARTED_HASH
from taskflow_local.stack import Stack


@asynccontextmanager
async def bare_worker(stack: Stack) -> AsyncIterator[tuple[Celery, redis.asyncio.Redis, int]]:
    """A warm plain Celery worker with two processes: its application, the broker, and its pid."""
    environ = {**os.environ, **stack.env(), "PYTHONPATH": str(CODE)}
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "bench_celery", "worker", "-c", "2", "-Q", "bare", "-l", "ERROR"],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = redis.asyncio.Redis.from_url(stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True)
    app = Celery("bare", broker=stack.env()["TASKFLOW_REDIS_URL"])
    app.conf.task_default_queue = "bare"
    try:
        app.send_task("bare.stamp", args=["warm-up"], queue="bare", ignore_result=True)
        while not await client.hexists(STARTED_HASH, "warm-up"):
            await asyncio.sleep(0.1)
        await client.delete(STARTED_HASH)
        yield app, client, worker.pid
    finally:
        worker.terminate()
        worker.wait()
        await client.aclose()
