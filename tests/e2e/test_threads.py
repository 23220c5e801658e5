"""A WorkerPool whose slots are threads, through the whole product."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product import Product, condition, eventually, records, task

pytestmark = pytest.mark.e2e
CONCURRENCY, SLEEPERS = 20, 46
ONE_TRY = {"maxAttempts": 1}


@pytest.fixture(scope="module")
def threads(product: Product) -> Iterator[Product]:
    """One pod of 20 threads, with little grace and little patience."""
    env = {
        "TASKFLOW_WORKER_HANDLERS": "e2e_handlers,e2e_sdk",
        "TASKFLOW_WORKER_STOP_GRACE_SECONDS": "1",
        "TASKFLOW_WORKER_THREAD_RETURN_SECONDS": "3",
    }
    container = {"name": "worker", "env": [{"name": name, "value": value} for name, value in env.items()]}
    spec = {
        "queues": ["threads"],
        "pool": "Threads",
        "concurrency": CONCURRENCY,
        "template": {"spec": {"terminationGracePeriodSeconds": 20, "containers": [container]}},
    }
    product.apply(
        {"apiVersion": "taskflow.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "threads"}, "spec": spec}
    )
    eventually(lambda: product.pool("threads").get("slots"), lambda slots: slots == CONCURRENCY, 60)
    yield product
    product.kubectl("delete", "tfp", "threads")


def words(product: Product, found: dict[str, Any]) -> list[str]:
    """The log of its first attempt, without the times."""
    prefix = f"default/{found['metadata']['uid']}/1/logs/"
    text = "".join(product.objects().get_bytes(each.key).decode() for each in product.objects().list(prefix))
    return [line.split(" ", 1)[1] for line in text.splitlines()]


def phases(product: Product) -> dict[str, tuple[str, str]]:
    """What `kubectl get tft` shows of this pool's Tasks: phase and reason by name."""
    lines = [line.split() for line in product.kubectl("get", "tft", "--no-headers").splitlines()]
    return {line[0]: (line[1], line[4]) for line in lines if line[2] == "threads" and len(line) > 5}


def test_fifty_tasks_share_twenty_threads_and_one_is_cancelled_and_one_times_out(
    threads: Product, tmp_path: Path
) -> None:
    record, gate = tmp_path / "record", tmp_path / "gate"
    sleepers = [f"thr-sleeps-{number}" for number in range(SLEEPERS)]
    talkers = ["thr-talks-1", "thr-talks-2"]
    threads.apply(
        task("thr-told", "sdk.polite", queue="threads", kwargs={"record": str(tmp_path / "told")}),
        task(
            "thr-slow",
            "sdk.nap",
            queue="threads",
            kwargs={"record": str(tmp_path / "slow")},
            attemptTimeoutSeconds=2,
            retryPolicy=ONE_TRY,
        ),
        *(task(name, "sdk.chatter", queue="threads", args=[100]) for name in talkers),
        *(task(name, "e2e.wait_for_file", queue="threads", args=[str(record), str(gate)]) for name in sleepers),
    )
    status = eventually(lambda: threads.pool("threads"), lambda found: found.get("busySlots") == CONCURRENCY)
    assert status["slots"] == CONCURRENCY
    gate.touch()
    eventually(lambda: records(tmp_path / "told", "start"), lambda starts: len(starts) == 1)
    threads.kubectl("patch", "tft", "thr-told", "--type=merge", "-p", '{"spec":{"cancel":true}}')
    everything = ["thr-told", "thr-slow", *talkers, *sleepers]
    threads.kubectl("wait", *[f"tft/{name}" for name in everything], "--for=condition=Finished", "--timeout=90s")
    shown = phases(threads)
    assert shown.pop("thr-told") == ("Cancelled", "Cancelled")
    assert shown.pop("thr-slow") == ("Failed", "AttemptTimeout")
    assert shown == dict.fromkeys([*talkers, *sleepers], ("Succeeded", "Succeeded"))
    assert records(tmp_path / "told", "stopped")
    assert records(tmp_path / "slow", "cleaned")
    assert len({line["pid"] for line in records(record, "start")}) == 1
    assert Counter(line["uid"] for line in records(record, "start")).most_common(1)[0][1] == 1
    for name in talkers:
        found = threads.task(name)
        uid = found["metadata"]["uid"]
        assert words(threads, found) == [
            line for number in range(100) for line in (f"stdout {uid} {number}", f"WARNING e2e.sdk: {uid} {number}")
        ]


def test_a_handler_that_does_not_stop_costs_its_worker_and_no_neighbour(threads: Product, tmp_path: Path) -> None:
    pod = json.loads(threads.kubectl("get", "pods", "-l", "taskflow.dev/pool=threads", "-o", "json"))["items"][0]
    beside = tmp_path / "beside"
    threads.apply(
        task("thr-beside", "e2e.recorded_sleep", queue="threads", args=[str(beside), 10.0]),
        task(
            "thr-deaf",
            "e2e.wait_for_file",
            queue="threads",
            kwargs={"record": str(tmp_path / "deaf"), "path": str(tmp_path / "never")},
            attemptTimeoutSeconds=1,
            retryPolicy=ONE_TRY,
        ),
    )
    found = threads.finished("thr-deaf")
    assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "AttemptTimeout")
    assert "was given up, since a thread cannot be killed" in condition(found, "Failed")["message"]
    restarts = partial(_restarts, threads, pod["metadata"]["name"])
    assert eventually(restarts, lambda count: count == 1, 60) == 1
    assert threads.finished("thr-beside")["status"]["attempts"] == 1
    assert len(records(beside, "end")) == 1
    assert threads.run("thr-after", "taskflow.echo", queue="threads")["status"]["phase"] == "Succeeded"


def _restarts(product: Product, pod: str) -> int:
    statuses = json.loads(product.kubectl("get", "pod", pod, "-o", "json"))["status"]["containerStatuses"]
    return int(statuses[0]["restartCount"])


def test_another_kind_of_pool_is_a_rollout_that_costs_no_attempt(threads: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    names = [f"thr-rolls-{number}" for number in range(12)]
    threads.apply(
        *(task(name, "e2e.recorded_sleep", queue="threads", args=[str(record), 4.0]) for name in names),
    )
    eventually(lambda: len(records(record, "start")), lambda count: count == len(names))
    threads.kubectl("patch", "tfp", "threads", "--type=merge", "-p", '{"spec":{"pool":"Prefork","concurrency":2}}')
    eventually(lambda: threads.pool("threads").get("slots"), lambda slots: slots == 2, 60)
    for name in names:
        status = threads.finished(name)["status"]
        assert status["attempts"] == 1, status.get("lastError")
    assert len(records(record, "start")) == len(records(record, "end")) == len(names)
    since = time.monotonic()
    assert threads.run("thr-forked", "taskflow.echo", queue="threads")["status"]["phase"] == "Succeeded"
    assert time.monotonic() - since < 30
