"""The control: plain Celery as its documentation says for work that must not be lost, with handlers that keep the same
record.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from chaos_handlers import Planned, write  # type: ignore[import-not-found]  # a neighbour on PYTHONPATH

app = Celery("plain", broker=os.environ.get("TASKFLOW_REDIS_URL"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("TASKFLOW_CHAOS_VISIBILITY", "6")),
        # Kinder than the defaults: what timed out is looked for each second, not each 100.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)


def run_of(task: Any) -> str:
    name = f"{task.request.id}:{task.request.retries + 1}:{os.urandom(8).hex()}"
    write(what="start", run=name, uid=task.request.id, attempt=task.request.retries + 1)
    return name


@app.task(bind=True, name="plain.work", max_retries=3)  # type: ignore[untyped-decorator]
def work(self: Any, handler: str, seconds: float) -> None:
    """The four kinds of end that TaskFlow's handlers have."""
    run = run_of(self)
    time.sleep(seconds)
    if handler == "chaos.never" or (handler == "chaos.again" and self.request.retries == 0):
        write(what="raise", run=run)
        raise self.retry(exc=Planned("it fails on purpose"), countdown=1)
    write(what="end", run=run)
