"""A release in one file: a pool gets another version of the code, and Tasks use what only that one has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product import Product, condition, eventually, task

pytestmark = pytest.mark.e2e


def pool(name: str, handlers: str) -> dict[str, Any]:
    containers = [{"name": "worker", "env": [{"name": "TASKFLOW_WORKER_HANDLERS", "value": handlers}]}]
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {"queues": [name], "replicas": 1, "template": {"spec": {"containers": containers}}},
    }


def served(product: Product, name: str) -> None:
    """The pool has its workers, and they take Tasks."""
    product.apply(pool(name, "e2e_sdk"))
    product.kubectl("wait", "--for=condition=Ready", f"tfp/{name}", "--timeout=120s")
    product.run(f"{name}-before", "taskflow.echo", queue=name)


@pytest.mark.parametrize("order", ["task first", "pool first"])
def test_a_task_of_a_new_handler_runs_once_its_pool_was_rolled_out(
    product: Product, tmp_path: Path, order: str
) -> None:
    name = order.replace(" ", "-")
    served(product, name)
    record = str(tmp_path / "record")
    release = [
        task(f"{name}-new", "e2e.recorded_sleep", queue=name, args=[record, 0]),
        task(f"{name}-array", "arrays.work", queue=name, args=[str(tmp_path), {}, 0], array={"count": 50}),
        pool(name, "e2e_handlers,e2e_arrays"),
    ]
    product.apply(*(release if order == "task first" else reversed(release)))
    for each in (f"{name}-new", f"{name}-array"):
        found = product.finished(each, seconds=120)
        assert found["status"]["phase"] == "Succeeded", found["status"]
        assert "unknownHandlerTime" not in found["status"]


def test_a_handler_that_no_worker_has_fails_after_a_moment_and_says_so_meanwhile(product: Product) -> None:
    product.apply(task("typo", "no.such_handler"), task("typos", "no.such_handler", array={"count": 3}))
    for name in ("typo", "typos"):
        held = eventually(
            lambda name=name: product.task(name),  # type: ignore[misc]
            lambda found: found.get("status", {}).get("reason") == "UnknownHandler",
        )
        if held["status"]["phase"] == "Pending":
            assert "has no handler 'no.such_handler'; tries again until " in condition(held, "Queued")["message"]
        found = product.finished(name, seconds=120)
        assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "UnknownHandler")
        words = condition(found, "Finished")["message"]
        assert "no handler 'no.such_handler' in this worker; it has:" in words
