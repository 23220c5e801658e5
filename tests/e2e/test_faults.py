"""Parts die or go away in the middle; nothing is lost, and the history tells what happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

from taskflow_core.domain.naming import keys_of
from tests.e2e.own_pool import OwnPool
from tests.e2e.product import Product, eventually, records, task

KEYS = keys_of("default")
pytestmark = pytest.mark.e2e

SOON = {"maxAttempts": 3, "backoffSeconds": 1, "backoffFactor": 1}


def start_gated(product: Product, name: str, folder: Path, **spec: Any) -> tuple[Path, Path]:
    """A Task that runs until its gate file appears; returns once it runs: (gate, record)."""
    gate, record = folder / f"{name}.gate", folder / f"{name}.record"
    product.apply(task(name, "e2e.wait_for_file", kwargs={"record": str(record), "path": str(gate)}, **spec))
    eventually(lambda: records(record, "start"), lambda starts: len(starts) == 1)
    return gate, record


def test_a_killed_pool_process_costs_one_attempt_and_history_shows_both(product: Product, tmp_path: Path) -> None:
    gate, record = start_gated(product, "kill-child", tmp_path, retryPolicy=SOON)
    os.kill(records(record, "start")[0]["pid"], signal.SIGKILL)
    gate.touch()
    found = product.finished("kill-child")
    assert found["status"]["phase"] == "Succeeded"
    assert found["status"]["attempt"] == 2
    assert found["status"]["lastError"]["reason"] == "WorkerLost"
    assert [line["attempt"] for line in records(record, "start")] == [1, 2]
    attempts = {a["attempt"]: a for a in product.history("kill-child", "Succeeded")["attempts"]}
    assert attempts[1]["outcome"] == "lost"
    assert attempts[1]["reason"] == "WorkerLost"
    assert attempts[2]["outcome"] == "succeeded"


def test_a_task_that_kills_each_worker_that_it_meets_ends_after_three_of_them(product: Product) -> None:
    pool = OwnPool(product, "poisoned", replicas=1)
    quickly = {"maxAttempts": 50, "backoffSeconds": 0}
    product.apply(task("kills", "e2e.kill_the_worker", queue=pool.name, retryPolicy=quickly))
    status = product.finished("kills", seconds=240)["status"]
    assert (status["phase"], status["reason"], status["attempts"]) == ("Failed", "PoisonTask", 3)
    assert len(set(status["lostWorkers"])) == 3
    assert all(worker in status["message"] for worker in status["lostWorkers"])
    # The pool is there for others.
    assert product.run("after-poison", "taskflow.echo", queue=pool.name)["status"]["phase"] == "Succeeded"
    product.kubectl("delete", "tfp", pool.name)


def test_a_killed_worker_is_noticed_by_its_pod(product: Product, tmp_path: Path) -> None:
    gate, record = start_gated(product, "kill-worker", tmp_path, retryPolicy=SOON)
    for pid in product.worker_pids():
        os.kill(pid, signal.SIGKILL)
    gate.touch()
    found = product.finished("kill-worker")
    assert found["status"]["phase"] == "Succeeded"
    assert found["status"]["attempt"] == 2
    assert "on node local ended with exit code 137" in found["status"]["lastError"]["message"]
    assert [line["attempt"] for line in records(record, "start")] == [1, 2]


def test_a_paused_worker_is_fenced_when_it_comes_back(product: Product, tmp_path: Path) -> None:
    gate, record = start_gated(product, "paused", tmp_path, retryPolicy=SOON)
    paused = product.worker_pids()
    product.kubectl("scale", "tfp/main", "--replicas=2")
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)
    try:
        # The second attempt runs on the other worker while the first is asleep.
        eventually(lambda: records(record, "start"), lambda starts: len(starts) == 2, 60)
        gate.touch()
        found = product.finished("paused")
    finally:
        for pid in paused:
            os.kill(pid, signal.SIGCONT)
    assert found["status"]["result"] == 2
    eventually(lambda: records(record, "end"), lambda ends: len(ends) == 2)
    told = eventually(
        lambda: product.get("/v1/namespaces/default/tasks/paused")["timeline"],
        lambda lines: any(line["kind"] == "stale" for line in lines),
    )
    assert [line["kind"] for line in told if line["attempt"] == 1][:3] == ["queued", "started", "lost"]
    assert product.task("paused")["status"]["result"] == 2
    product.kubectl("scale", "tfp/main", "--replicas=1")
    product.kubectl("wait", "tfp/main", "--for=jsonpath={.status.replicas}=1", "--timeout=60s")


def test_a_killed_operator_goes_on_where_it_was(product: Product, tmp_path: Path) -> None:
    gate, record = start_gated(product, "kill-operator", tmp_path)
    product.stack.stop("operator", signal.SIGKILL)
    gate.touch()
    eventually(lambda: records(record, "end"), lambda ends: len(ends) == 1)
    product.apply(task("meanwhile", "taskflow.echo", kwargs={"value": 7}))
    product.stack.start("operator")
    status = product.finished("kill-operator")["status"]
    assert status["attempt"] == 1, status.get("lastError")
    assert product.finished("meanwhile")["status"]["result"] == 7
    assert len(records(record, "start")) == 1
    assert product.history("kill-operator", "Succeeded")["attempts"][0]["outcome"] == "succeeded"


def test_a_backoff_survives_a_restart_of_the_operator(product: Product) -> None:
    product.apply(
        task("patient", "taskflow.fail", kwargs={"until_attempt": 2}, retryPolicy={**SOON, "backoffSeconds": 4})
    )
    product.in_phase("patient", "Pending")
    product.stack.stop("operator")
    product.stack.start("operator")
    assert product.finished("patient")["status"]["attempt"] == 2


def test_work_goes_on_without_postgres_and_history_catches_up(product: Product) -> None:
    product.stack.stop("postgres", signal.SIGKILL)
    try:
        found = product.run("no-postgres", "taskflow.echo", kwargs={"value": 1})
        assert found["status"]["phase"] == "Succeeded"
    finally:
        product.stack.start("postgres")
    told = product.history("no-postgres", "Succeeded")
    assert [event["kind"] for event in told["timeline"]] == ["queued", "started", "succeeded", "settled"]


def test_work_waits_for_the_object_store(product: Product) -> None:
    product.objects().put_bytes("default/in/waits.txt", b"abc")
    product.stack.stop("minio", signal.SIGKILL)
    try:
        product.apply(
            task(
                "no-minio",
                "e2e.upper",
                inputs=[{"name": "text.txt", "key": "in/waits.txt"}],
                outputs=[{"name": "upper.txt"}],
            )
        )
        product.in_phase("no-minio", "Running")
    finally:
        product.stack.start("minio")
    found = product.finished("no-minio")
    assert found["status"]["phase"] == "Succeeded"
    assert found["status"]["attempt"] == 1
    assert product.objects().get_bytes(found["status"]["outputs"][0]["key"]) == b"ABC"


def test_a_redis_restart_loses_nothing(product: Product, tmp_path: Path) -> None:
    gate, record = start_gated(product, "redis-restart", tmp_path)
    product.stack.stop("redis", signal.SIGKILL)
    product.apply(task("redis-later", "taskflow.echo", kwargs={"value": 3}))
    product.stack.start("redis")
    gate.touch()
    assert product.finished("redis-restart")["status"]["attempt"] == 1
    assert product.finished("redis-later")["status"]["result"] == 3
    assert len(records(record, "start")) == 1


def test_a_flushed_redis_is_rebuilt_from_the_tasks(product: Product, tmp_path: Path) -> None:
    gate, record = start_gated(product, "flushed-running", tmp_path)
    other, _ = start_gated(product, "flushed-other", tmp_path)
    product.apply(task("flushed-queued", "taskflow.echo", kwargs={"value": 5}))
    product.in_phase("flushed-queued", "Queued")
    flush(product)
    # Workers enter again what they run; only then is what was queued queued anew.
    gate.touch()
    other.touch()
    assert product.finished("flushed-running")["status"]["attempt"] == 1
    assert product.finished("flushed-queued")["status"]["result"] == 5
    assert len(records(record, "start")) == 1


def test_a_stopping_worker_finishes_what_is_short_and_hands_back_what_is_long(product: Product, tmp_path: Path) -> None:
    gate, record = start_gated(product, "handed-back", tmp_path, retryPolicy={"maxAttempts": 1})
    product.apply(task("short", "e2e.recorded_sleep", kwargs={"record": str(tmp_path / "short"), "seconds": 1.0}))
    eventually(lambda: records(tmp_path / "short", "start"), lambda starts: len(starts) == 1)
    product.kubectl("rollout", "restart", "deployment/main-workers")
    assert product.finished("short")["status"]["attempt"] == 1
    eventually(lambda: records(record, "start"), lambda starts: len(starts) == 2, 60)
    gate.touch()
    found = product.finished("handed-back")
    assert found["status"]["phase"] == "Succeeded"
    assert found["status"]["attempt"] == 2
    assert found["status"]["handbacks"] == 1
    assert found["status"]["lastError"]["reason"] == "Drain"


def test_a_message_lost_from_its_queue_is_sent_again(product: Product, tmp_path: Path) -> None:
    gates = [start_gated(product, name, tmp_path)[0] for name in ("hold-1", "hold-2")]
    product.apply(task("lost-message", "taskflow.echo", kwargs={"value": 9}))
    product.in_phase("lost-message", "Queued")
    redis = connect(product)
    assert redis.delete("default.default", *(f"default.default\x06\x16{step}" for step in (3, 6, 9))) == 1
    for gate in gates:
        gate.touch()
    assert product.finished("lost-message")["status"]["result"] == 9


def test_nothing_is_left_in_the_ledger(product: Product) -> None:
    redis = connect(product)
    eventually(lambda: redis.zcard(KEYS.ledger) + redis.zcard(KEYS.leases), lambda count: count == 0)
    for group in ("cr", "pg"):
        assert_drained(redis, group)


def connect(product: Product) -> Any:
    return redis_client.Redis.from_url(product.stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True)


def flush(product: Product) -> None:
    connect(product).flushall()


def assert_drained(redis: Any, group: str) -> None:
    for stream in (KEYS.events, KEYS.notes) if group == "pg" else (KEYS.events,):
        eventually(lambda stream=stream: redis.xpending(stream, group)["pending"], lambda count: count == 0)  # type: ignore[misc]
