# mypy: disable-error-code="untyped-decorator"
"""A Celery application as people have them: nothing here knows of TaskFlow.

A WorkerPool serves its tasks with `TASKFLOW_WORKER_APP=shop:app`; see examples/celery_app/pool.yaml.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Celery, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

app = Celery("shop", broker="amqp://guest@rabbitmq.invalid//", backend="redis://redis.invalid/0")
log = logging.getLogger(__name__)


class OutOfStock(Exception):  # noqa: N818 - named as shops do
    """The item has to be ordered first."""


@app.task(name="shop.total")
def total(prices: list[float], *, discount: float = 0.0) -> float:
    """Sum of the prices, less a discount."""
    return round(sum(prices) * (1 - discount), 2)


@app.task(name="shop.reserve", bind=True, max_retries=3)
def reserve(self: Any, item: str, in_stock_at: int) -> dict[str, Any]:
    """Reserve an item; in stock only from some retry on."""
    log.info("reserving %s, retry %s of %s", item, self.request.retries, self.request.id)
    try:
        if self.request.retries < in_stock_at:
            raise OutOfStock(item)  # noqa: TRY301 - the example is about the retry
    except OutOfStock as error:
        raise self.retry(exc=error, countdown=600) from error
    return {"item": item, "retries": self.request.retries, "id": self.request.id}


@app.task(name="shop.charge", bind=True, autoretry_for=(ConnectionError,), retry_backoff=True, max_retries=1)
def charge(self: Any, fails: int) -> int:
    """Charge a card over a network that fails some times."""
    if self.request.retries < fails:
        raise ConnectionError("the bank does not answer")
    return int(self.request.retries)


@app.task(name="shop.pack", bind=True)
def pack(self: Any, items: int, pause: float = 0.0) -> int:
    """Pack items one by one and say how far it is."""
    for done in range(items + 1):
        self.update_state(state="PACKING", meta={"current": done, "total": items})
        time.sleep(pause)
    return items


@app.task(name="shop.skip")
def skip() -> None:
    """Find nothing to do."""
    raise Ignore


@app.task(name="shop.refuse")
def refuse() -> None:
    """Refuse for good."""
    raise Reject("not for sale", requeue=False)


@shared_task(name="shop.audit", bind=True)
def audit(self: Any) -> str:
    """A task that belongs to whatever application imports it."""
    return f"{self.app.main}:{self.request.task}"


@app.task(name="shop.patient")
def patient(seconds: float) -> str:
    """Take long, and clean up when Celery's soft time limit says so."""
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        print("cleaned up")  # noqa: T201 - as people do
        raise
    return "done"
