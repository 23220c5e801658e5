"""The tasks of an unchanged Celery application, run by Tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.product import Product, task

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples" / "celery_app"
AT_ONCE = {"maxAttempts": 5, "backoffSeconds": 0}


@pytest.fixture(scope="module")
def shop(product: Product) -> Iterator[Product]:
    """The example's own pool, with its code on the path."""
    pool = yaml.safe_load((EXAMPLE / "pool.yaml").read_text())
    (container,) = pool["spec"]["template"]["spec"]["containers"]
    container["env"].append({"name": "PYTHONPATH", "value": str(EXAMPLE)})
    product.apply(pool)
    product.kubectl("wait", "tfp/shop", "--for=condition=Ready", "--timeout=60s")
    yield product
    product.kubectl("delete", "tfp", "shop")


def test_the_example_runs_as_it_is_written(shop: Product) -> None:
    shop.kubectl("apply", "-f", str(EXAMPLE / "task.yaml"))
    assert shop.finished("shop-total")["status"]["result"] == 18.0


def test_a_task_that_asks_for_a_retry_gets_another_attempt(shop: Product) -> None:
    found = shop.run("shop-reserve", "shop.reserve", queue="shop", args=["tea", 1], retryPolicy=AT_ONCE)
    assert found["status"]["result"] == {"item": "tea", "retries": 1, "id": found["metadata"]["uid"]}
    assert found["status"]["attempt"] == 2
    assert found["status"]["lastError"]["type"] == "shop.OutOfStock"


def test_max_retries_of_the_task_ends_it(shop: Product) -> None:
    found = shop.run("shop-charge", "shop.charge", queue="shop", kwargs={"fails": 9}, retryPolicy=AT_ONCE)
    assert found["status"]["reason"] == "NotRetryable"
    assert found["status"]["attempt"] == 2


def test_its_state_is_shown_as_progress(shop: Product) -> None:
    shop.apply(task("shop-pack", "shop.pack", queue="shop", kwargs={"items": 2, "pause": 0.2}))
    found = shop.finished("shop-pack")
    assert found["status"]["result"] == 2
    assert found["status"]["progress"] == {"done": 2, "total": 2, "message": "PACKING"}


def test_a_time_limit_is_celerys_soft_one(shop: Product) -> None:
    found = shop.run(
        "shop-patient",
        "shop.patient",
        queue="shop",
        kwargs={"seconds": 600},
        attemptTimeoutSeconds=1,
        retryPolicy={"maxAttempts": 1},
    )
    assert found["status"]["reason"] == "AttemptTimeout"
    assert "SoftTimeLimitExceeded" in found["status"]["lastError"]["type"]
    prefix = f"default/{found['metadata']['uid']}/1/logs/"
    log = b"".join(shop.objects().get_bytes(each.key) for each in shop.objects().list(prefix))
    assert b" stdout cleaned up\n" in log


def test_wrong_arguments_are_refused_before_the_task_runs(shop: Product) -> None:
    found = shop.run("shop-wrong", "shop.total", queue="shop", kwargs={"amount": 3})
    assert found["status"]["reason"] == "InvalidArguments"
