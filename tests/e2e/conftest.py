from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.chart.rendering import DEV, render
from tests.e2e import audit
from tests.e2e.own_stack import own_stack
from tests.e2e.product import Product, eventually
from tests.redis_users import refused
from tests.session import WORKER

CONCURRENCY = 2
MISTYPED = "mistyped"
"""A Redis user that there is not."""
POOL = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "main"},
    "spec": {
        "queues": ["default"],
        "concurrency": CONCURRENCY,
        "template": {
            "spec": {
                "terminationGracePeriodSeconds": 12,
                "containers": [
                    {
                        "name": "worker",
                        "env": [{"name": "TASKFLOW_WORKER_HANDLERS", "value": "e2e_handlers,e2e_arrays"}],
                    }
                ],
            }
        },
    },
}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which rights were used is known after all other tests of this folder, and only if all of them run.

    When several processes share them, it is known once all of these have ended: then the tests of rights are run alone.
    """
    here = Path(__file__).parent
    ours = [item for item in items if item.path.parent == here]
    last = [item for item in ours if item.path.name == "test_rights.py"]
    if not last or (audit.kept() and last == ours):
        return
    whole = (
        not audit.kept() and WORKER not in os.environ and {item.path for item in ours} == set(here.glob("test_*.py"))
    )
    end = max(items.index(item) for item in ours) + 1
    if whole:
        items[:] = [item for item in items[:end] if item not in last] + last + items[end:]
    else:
        items[:] = [item for item in items if item not in last]
        config.hook.pytest_deselected(items=last)


@pytest.fixture(autouse=True)
def over(tmp_path: Path) -> Iterator[None]:
    """What still waits for a file of a test that failed ends, or no slot would be left to those after it."""
    yield
    (tmp_path / "over").touch()


@pytest.fixture(scope="module", autouse=True)
def _ran(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the audit logs are about is known too, if they are kept."""
    yield
    audit.note(request.path.stem)


@pytest.fixture(scope="module")
def product(whole_product: Product) -> Iterator[Product]:
    """The whole product with one warm worker. A test that stops a part starts it again; no module leaves Tasks to the
    next.
    """
    yield whole_product
    whole_product.kubectl("delete", "tft", "--all")


@pytest.fixture(scope="package")
def whole_product() -> Iterator[Product]:
    """Started once for all modules that one process runs."""
    with own_stack() as product:
        # Its components have the names that the chart gives them: what they do has to pass the chart's policies.
        product.apply(*(each for each in render(*DEV) if each["kind"].startswith("ValidatingAdmissionPolicy")))
        product.apply(POOL)
        product.kubectl("wait", "tfp/main", "--for=condition=Ready", "--timeout=60s")
        # It takes messages from now on: what it fetched while it starts would be sent a second time, and refused.
        eventually(lambda: product.pool("main").get("slots"), lambda slots: slots == CONCURRENCY, 60)
        yield product
        with redis.Redis.from_url(product.stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True) as raw:
            # Whoever asked Redis for something had the right to it. But after Redis was restarted, workers would load
            # their scripts until the operator has.
            assert [each for each in refused(raw) if each[2] != "script|load" and each[0] != MISTYPED] == []
