"""One resource stands for many items: through the whole product, and with parts of it dying in the middle."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from taskflow_core.domain.naming import keys_of
from tests.e2e.product import Product, eventually, task

KEYS = keys_of("default")
pytestmark = pytest.mark.e2e

SOON = {"maxAttempts": 3, "backoffSeconds": 1, "backoffFactor": 1, "jitterPercent": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where handlers keep their record."""
    made = tmp_path / "record"
    made.mkdir()
    return made


def array(
    name: str, folder: Path, count: int, *, bad: dict[str, list[int]] | None = None, seconds: float = 0, **more: Any
) -> dict[str, Any]:
    wanted = {"count": count, **more.pop("array", {})}
    return task(
        name, "arrays.work", args=[str(folder), bad or {}, seconds], array=wanted, **{"retryPolicy": SOON, **more}
    )


def executed(folder: Path) -> Counter[tuple[int, int]]:
    """How often each (item, attempt) was run."""
    found: Counter[tuple[int, int]] = Counter()
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            item, attempt = line.split()
            found[int(item), int(attempt)] += 1
    return found


def items(product: Product, name: str, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = -1
    while True:
        page = product.get(f"/v1/namespaces/default/tasks/{name}/items?limit=1000&after={after}{query}")
        found += page["items"]
        if page["next"] is None:
            return found
        after = page["next"]


def accounted(product: Product, name: str, total: int) -> dict[str, Any]:
    """Each item ended exactly once, in the status as in the history; nothing is left in Redis. Returns the array's
    status.
    """
    found: dict[str, Any] = product.task(name)["status"]["array"]
    rows = items(product, name)
    ended = [index for row in rows for index in range(row["first"], row["last"] + 1)]
    assert ended == list(range(total))
    sizes: Counter[str] = Counter()
    for row in rows:
        sizes[row["state"]] += row["last"] - row["first"] + 1
    assert (sizes["succeeded"], sizes["failed"]) == (found["succeeded"], found["failed"])
    redis = connect(product)
    assert redis.keys(f"{KEYS.array_prefix}*") == []
    assert redis.zcard(KEYS.ledger) == redis.zcard(KEYS.leases) == 0
    return found


def connect(product: Product) -> Any:
    return redis_client.Redis.from_url(product.stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True)


def begun(product: Product, name: str, least: int = 1) -> dict[str, Any]:
    """Once so many items have ended."""
    return eventually(
        lambda: product.task(name),
        lambda found: found.get("status", {}).get("array", {}).get("succeeded", 0) >= least,
        60,
    )


def test_twenty_thousand_items_of_which_some_fail(product: Product, folder: Path) -> None:
    bad = {"1": [7, 500, 501, 19_999], "2": [7, 501, 19_999], "3": [7, 501, 19_999]}
    product.apply(array("many", folder, 20_000, bad=bad))
    found = product.finished("many", 120)["status"]
    assert (found["phase"], found["reason"]) == ("Failed", "ItemsFailed")
    assert found["message"] == "3 of 20000 items failed: 7,501,19999"
    told = accounted(product, "many", 20_000)
    assert (told["items"], told["retried"]) == ("20000/20000 (3 failed)", 4)
    assert "20000/20000 (3 failed)" in product.kubectl("get", "tft", "many")
    ran = executed(folder)
    assert set(ran.values()) == {1}
    assert len(ran) == 20_000 + 4 + 3
    failed = items(product, "many", "&state=failed")
    assert [(row["first"], row["attempts"], row["message"]) for row in failed] == [
        (index, 3, f"item {index} is bad") for index in (7, 501, 19_999)
    ]
    assert product.history("many", "Failed")["timeline"][-1]["kind"] == "settled"
    # Those that failed, by themselves, in a Task of their own.
    again = task(
        "many-again",
        "arrays.work",
        args=[str(folder), {}, 0],
        array={"count": 20_000, "failedOf": product.task("many")["metadata"]["uid"]},
    )
    product.apply(again)
    assert product.finished("many-again")["status"]["array"]["items"] == "3/3"
    assert executed(folder) - ran == Counter({(7, 1): 1, (501, 1): 1, (19_999, 1): 1})


def test_cancelled_in_the_middle(product: Product, folder: Path) -> None:
    product.apply(array("stopped", folder, 100_000, seconds=0.005))
    begun(product, "stopped")
    product.kubectl("patch", "tft", "stopped", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    found = product.finished("stopped")["status"]
    assert (found["phase"], found["reason"]) == ("Cancelled", "Cancelled")
    ran = executed(folder)
    time.sleep(1)
    assert executed(folder) == ran
    ended = sum(row["last"] - row["first"] + 1 for row in items(product, "stopped"))
    # Those that were interrupted have run, and not ended.
    assert ended == found["array"]["succeeded"] <= len(ran) <= ended + 4
    assert connect(product).keys(f"{KEYS.array_prefix}*") == []


def test_suspended_and_resumed(product: Product, folder: Path) -> None:
    product.apply(array("paused", folder, 3000, seconds=0.002))
    begun(product, "paused")
    product.kubectl("patch", "tft", "paused", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    product.in_phase("paused", "Suspended")
    eventually(lambda: connect(product).zcard(KEYS.leases), lambda held: held == 0)
    ran = executed(folder)
    time.sleep(1.5)
    assert executed(folder) == ran
    assert len(ran) < 3000
    product.kubectl("patch", "tft", "paused", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    assert product.finished("paused", 60)["status"]["phase"] == "Succeeded"
    accounted(product, "paused", 3000)
    assert set(executed(folder).values()) == {1}


def test_a_worker_killed_in_the_middle(product: Product, folder: Path) -> None:
    product.apply(array("kill-array", folder, 4000, seconds=0.002))
    begun(product, "kill-array")
    for pid in product.worker_pids():
        os.kill(pid, signal.SIGKILL)
    found = product.finished("kill-array", 120)["status"]
    assert found["phase"] == "Succeeded"
    told = accounted(product, "kill-array", 4000)
    ran = executed(folder)
    assert {index for index, _ in ran} == set(range(4000))
    assert set(ran.values()) == {1}
    # Only items of the chunks that were in its hands are run again, each as another attempt.
    twice = [index for index, attempt in ran if attempt == 2]
    assert len(twice) == told["retried"] > 0


def test_an_operator_killed_in_the_middle(product: Product, folder: Path) -> None:
    product.apply(array("kill-both", folder, 4000, seconds=0.002))
    begun(product, "kill-both")
    product.stack.stop("operator", signal.SIGKILL)
    time.sleep(1)
    product.stack.start("operator")
    assert product.finished("kill-both", 120)["status"]["phase"] == "Succeeded"
    accounted(product, "kill-both", 4000)
    ran = executed(folder)
    assert len(ran) == 4000
    assert set(ran.values()) == {1}


def test_a_flush_in_the_middle(product: Product, folder: Path) -> None:
    product.apply(array("flush-array", folder, 4000, seconds=0.002))
    begun(product, "flush-array")
    connect(product).flushall()
    assert product.finished("flush-array", 120)["status"]["phase"] == "Succeeded"
    accounted(product, "flush-array", 4000)
    assert {index for index, _ in executed(folder)} == set(range(4000))


def test_items_of_an_object_with_results(product: Product) -> None:
    rows = "".join(f'{number},"word {number}"\n' for number in range(2500))
    product.objects().put_bytes("default/arrays/in.csv", b"id,words\n" + rows.encode())
    product.apply(task("rows", "arrays.words", array={"itemsFrom": {"key": "arrays/in.csv", "format": "CSV"}}))
    assert product.finished("rows", 60)["status"]["array"]["items"] == "2500/2500"
    found = items(product, "rows")
    assert [(row["first"], row["result"]) for row in found] == [(number, f"WORD {number}") for number in range(2500)]


def test_a_handler_of_batches_and_one_that_is_no_handler_of_ours(product: Product) -> None:
    product.apply(task("batches", "arrays.batch", array={"count": 500}))
    assert product.finished("batches")["status"]["phase"] == "Succeeded"
    assert max(row["result"] for row in items(product, "batches")) > 1
    product.apply(task("echoes", "taskflow.echo", array={"items": ["a", {"b": 1}]}))
    assert product.finished("echoes")["status"]["phase"] == "Succeeded"
    assert [row["result"] for row in items(product, "echoes")] == ["a", {"b": 1}]


def test_an_item_that_hangs_or_kills_fails_alone(product: Product) -> None:
    policy = {**SOON, "maxAttempts": 2}
    product.apply(task("hangs", "arrays.slow", array={"count": 20}, attemptTimeoutSeconds=1, retryPolicy=policy))
    product.apply(task("poison", "arrays.poison", array={"count": 300}, retryPolicy={**SOON, "maxAttempts": 20}))
    hangs = product.finished("hangs", 120)["status"]
    assert hangs["array"]["items"] == "20/20 (1 failed)"
    (row,) = items(product, "hangs", "&state=failed")
    assert (row["first"], row["reason"], row["attempts"]) == (3, "AttemptTimeout", 2)
    poisoned = product.finished("poison", 120)["status"]
    assert poisoned["array"]["failedIndexes"] == "42"
    (row,) = items(product, "poison", "&state=failed")
    assert (row["reason"], row["attempts"]) == ("PoisonTask", 3)


def test_a_pool_of_threads_runs_chunks_side_by_side(product: Product, folder: Path) -> None:
    container = {"name": "worker", "env": [{"name": "TASKFLOW_WORKER_HANDLERS", "value": "e2e_arrays"}]}
    spec = {"queues": ["threads"], "pool": "Threads", "concurrency": 8, "replicas": 1}
    template = {"spec": {"terminationGracePeriodSeconds": 12, "containers": [container]}}
    product.apply(
        {
            "apiVersion": "taskflow.dev/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": "threads"},
            "spec": {**spec, "template": template},
        }
    )
    eventually(lambda: product.pool("threads").get("slots"), lambda slots: slots == 8, 60)
    product.apply(array("threaded", folder, 600, seconds=0.05, bad={"1": [5]}, queue="threads"))
    assert product.finished("threaded", 60)["status"]["phase"] == "Succeeded"
    assert accounted(product, "threaded", 600)["retried"] == 1
    assert set(executed(folder).values()) == {1}
    product.kubectl("delete", "tfp", "threads")
