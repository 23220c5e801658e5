"""Tasks in Git: what ran is not run again because its resource was deleted and made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taskflow_client import Client
from taskflow_client.tasks import forget_runs
from tests.e2e.product import Product, eventually, records, task

pytestmark = pytest.mark.e2e


def healed(product: Product, name: str, record: Path, **spec: Any) -> dict[str, Any]:
    """Apply the manifest as a controller does that finds it missing; the Task when it finished."""
    kwargs = {"record": str(record), "seconds": 0, **spec.pop("kwargs", {})}
    product.apply(task(name, "e2e.recorded_sleep", kwargs=kwargs, rerun="UnlessSucceeded", **spec))
    return product.finished(name)


def gone(product: Product, name: str) -> None:
    eventually(lambda: product.kubectl("get", "tft", name, "--ignore-not-found"), lambda found: not found)


def test_a_task_that_its_time_to_live_deletes_again_and_again_is_executed_once(
    product: Product, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    first = healed(product, "from-git", record, ttlSecondsAfterFinished=1)
    assert (first["status"]["reason"], first["status"]["phase"]) == ("Succeeded", "Succeeded")
    for _ in range(3):
        gone(product, "from-git")
        again = healed(product, "from-git", record, ttlSecondsAfterFinished=1)
        status = again["status"]
        assert (status["phase"], status["reason"], status["attempts"]) == ("Succeeded", "AlreadyRan", 0)
        assert status.get("result") == first["status"].get("result")
        assert status["message"].startswith(f"ran as {first['metadata']['uid']} until ")
    assert len(records(record, "start")) == 1
    # Other work of the same name runs, and so does the same when that is asked for.
    gone(product, "from-git")
    other = healed(product, "from-git", record, kwargs={"seconds": 0.01})
    assert other["status"]["reason"] == "Succeeded"
    assert len(records(record, "start")) == 2
    product.kubectl("delete", "tft", "from-git")
    env = product.stack.env()
    with Client(env["TASKFLOW_API_URL"], lambda: env["TASKFLOW_API_TOKEN"]) as client:
        client.send(forget_runs("default", "from-git"))
    assert healed(product, "from-git", record)["status"]["reason"] == "Succeeded"
    assert len(records(record, "start")) == 3


def test_one_that_is_deleted_by_hand_at_once_is_not_executed_again(product: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    healed(product, "by-hand", record)
    product.kubectl("delete", "tft", "by-hand")
    assert healed(product, "by-hand", record)["status"]["reason"] == "AlreadyRan"
    assert len(records(record, "start")) == 1
