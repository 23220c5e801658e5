"""What a user may say about time and order, and what becomes of it; everything in the specification, nothing in a
worker.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from taskflow_core.domain.naming import broker_list
from tests.e2e.product import Product, condition, eventually, records, task

pytestmark = pytest.mark.e2e


def patch(product: Product, name: str, **spec: Any) -> None:
    product.kubectl("patch", "tft", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def blocked(product: Product, folder: Path, label: str) -> Path:
    """Occupies both slots of the worker until the returned file appears."""
    gate = folder / f"{label}.gate"
    for number in (1, 2):
        record = folder / f"{label}-{number}.record"
        product.apply(task(f"{label}-{number}", "e2e.wait_for_file", kwargs={"record": str(record), "path": str(gate)}))
        eventually(partial(records, record, "start"), lambda starts: len(starts) == 1)
    return gate


def at(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_task_is_not_queued_before_its_time(product: Product, tmp_path: Path) -> None:
    product.apply(task("later", "taskflow.echo", notBefore=at(4)))
    held = product.in_phase("later", "Pending")
    assert condition(held, "Queued")["reason"] == "NotBefore"
    found = product.finished("later")
    assert found["status"]["startTime"] >= found["spec"]["notBefore"]


def test_a_suspended_task_leaves_its_queue_and_runs_when_resumed(product: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    gate = blocked(product, tmp_path, "suspend-block")
    product.apply(task("suspended", "e2e.recorded_sleep", kwargs={"record": str(record), "seconds": 0}))
    product.in_phase("suspended", "Queued")
    patch(product, "suspended", suspend=True)
    held = product.in_phase("suspended", "Suspended")
    assert condition(held, "Queued") == condition(held, "Queued") | {"status": "False", "reason": "Suspended"}
    gate.touch()
    product.finished("suspend-block-1")
    product.run("after-suspended", "taskflow.echo")
    assert not record.exists()
    patch(product, "suspended", suspend=False)
    assert product.finished("suspended")["status"]["phase"] == "Succeeded"
    assert len(records(record, "start")) == 1


def test_a_task_created_suspended_waits_for_its_release(product: Product) -> None:
    product.apply(task("born-suspended", "taskflow.echo", suspend=True))
    product.in_phase("born-suspended", "Suspended")
    patch(product, "born-suspended", suspend=False)
    assert product.finished("born-suspended")["status"]["phase"] == "Succeeded"


def test_cancelling_a_queued_task_ends_it_at_once(product: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    gate = blocked(product, tmp_path, "cancel-block")
    product.apply(task("cancel-queued", "e2e.recorded_sleep", kwargs={"record": str(record), "seconds": 0}))
    product.in_phase("cancel-queued", "Queued")
    patch(product, "cancel-queued", cancel=True)
    found = product.finished("cancel-queued", seconds=5)
    assert found["status"]["phase"] == "Cancelled"
    assert condition(found, "Cancelled")["status"] == "True"
    gate.touch()
    product.finished("cancel-block-1")
    product.run("after-cancelled", "taskflow.echo")
    assert not record.exists()
    assert "a cancelled Task stays cancelled" in product.kubectl(
        "patch", "tft", "cancel-queued", "--type=merge", "-p", '{"spec":{"cancel":false}}', check=False
    )


def test_a_pending_task_can_be_cancelled(product: Product) -> None:
    product.apply(task("cancel-pending", "taskflow.echo", queue="nobody-serves"))
    product.in_phase("cancel-pending", "Pending")
    patch(product, "cancel-pending", cancel=True)
    assert product.finished("cancel-pending")["status"]["phase"] == "Cancelled"


def test_a_task_that_no_worker_takes_in_time_fails_without_having_run(product: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    gate = blocked(product, tmp_path, "timeout-block")
    product.apply(
        task(
            "queue-timeout",
            "e2e.recorded_sleep",
            kwargs={"record": str(record), "seconds": 0},
            queueTimeoutSeconds=2,
        )
    )
    found = product.finished("queue-timeout")
    gate.touch()
    assert found["status"]["phase"] == "Failed"
    assert found["status"]["reason"] == "QueueTimeout"
    assert "queueTimeoutSeconds (2 s)" in found["status"]["message"]
    product.finished("timeout-block-1")
    product.run("after-timeout", "taskflow.echo")
    assert not record.exists()


def test_the_deadline_ends_a_task_between_its_attempts(product: Product) -> None:
    found = product.run(
        "deadline",
        "taskflow.fail",
        activeDeadlineSeconds=2,
        retryPolicy={"maxAttempts": 10, "backoffSeconds": 60},
    )
    assert found["status"]["phase"] == "Failed"
    assert found["status"]["reason"] == "DeadlineExceeded"
    assert found["status"]["lastError"]["reason"] == "HandlerError"


def test_a_higher_priority_overtakes_also_when_it_is_raised_while_queued(product: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    gate = blocked(product, tmp_path, "priority-block")
    for number in range(4):
        product.apply(task(f"order-{number}", "e2e.recorded_sleep", kwargs={"record": str(record), "seconds": 0.2}))
        product.in_phase(f"order-{number}", "Queued")
    patch(product, "order-3", priority=9)
    eventually(lambda: product.task("order-3")["spec"]["priority"], lambda priority: priority == 9)
    raised = product.task("order-3")["metadata"]["uid"]
    # The priority is a new message; the old one is refused, and the count of refusals shows when it came.
    with redis.Redis.from_url(product.stack.env()["TASKFLOW_REDIS_URL"]) as client:
        eventually(lambda: client.llen(broker_list("default", "default", 9)), lambda length: length == 1)
    gate.touch()
    for number in range(4):
        product.finished(f"order-{number}")
    assert raised in [line["uid"] for line in records(record, "start")][:2]


def test_a_task_waits_for_those_it_depends_on(product: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    product.apply(
        task("second", "taskflow.echo", dependsOn=[{"name": "first"}]),
        task("third", "taskflow.echo", dependsOn=[{"name": "second"}, {"name": "first", "outcome": "Finished"}]),
    )
    held = product.in_phase("second", "Pending")
    assert condition(held, "Queued")["reason"] == "DependencyWaiting"
    assert "waits for Task 'first' to be created" in condition(held, "Queued")["message"]
    product.apply(task("first", "e2e.wait_for_file", kwargs={"record": str(tmp_path / "r"), "path": str(gate)}))
    eventually(lambda: product.task("second")["status"]["message"], lambda said: "to finish" in said)
    gate.touch()
    assert product.finished("third")["status"]["phase"] == "Succeeded"
    first, second, third = (product.task(name)["status"] for name in ("first", "second", "third"))
    assert first["completionTime"] <= second["completionTime"] <= third["completionTime"]


def test_a_failed_dependency_fails_the_task_unless_any_end_will_do(product: Product) -> None:
    once = {"maxAttempts": 1}
    product.run("broken", "taskflow.fail", retryPolicy=once)
    found = product.run("needs-broken", "taskflow.echo", dependsOn=[{"name": "broken"}])
    assert found["status"]["reason"] == "DependencyFailed"
    found = product.run("after-broken", "taskflow.echo", dependsOn=[{"name": "broken", "outcome": "Finished"}])
    assert found["status"]["phase"] == "Succeeded"


def test_a_cycle_of_dependencies_is_refused_with_the_cycle(product: Product) -> None:
    product.apply(
        task("ring-a", "taskflow.echo", dependsOn=[{"name": "ring-b"}]),
        task("ring-b", "taskflow.echo", dependsOn=[{"name": "ring-c"}]),
        task("ring-c", "taskflow.echo", dependsOn=[{"name": "ring-a"}]),
    )
    found = [product.finished(name) for name in ("ring-a", "ring-b", "ring-c")]
    told = [item["status"]["message"] for item in found if item["status"]["reason"] == "DependencyCycle"]
    assert told
    for message in told:
        names = message.removeprefix("dependsOn is a cycle: ").split(" -> ")
        assert names[0] == names[-1]
        assert set(names) == {"ring-a", "ring-b", "ring-c"}
    assert {item["status"]["reason"] for item in found} <= {"DependencyCycle", "DependencyFailed"}


def test_a_dependency_that_was_deleted_after_it_succeeded_still_counts(product: Product) -> None:
    product.run("gone-first", "taskflow.echo")
    product.history("gone-first", "Succeeded")
    product.kubectl("delete", "tft", "gone-first")
    found = product.run("needs-gone", "taskflow.echo", dependsOn=[{"name": "gone-first"}])
    assert found["status"]["phase"] == "Succeeded"


def test_a_finished_task_is_deleted_after_its_time_to_live_and_stays_in_the_history(product: Product) -> None:
    product.run("short-lived", "taskflow.echo", ttlSecondsAfterFinished=2)
    eventually(lambda: product.kubectl("get", "tft", "short-lived", check=False), lambda said: "NotFound" in said, 20)
    told = product.get("/v1/namespaces/default/tasks/short-lived")
    assert told["live"] is False
    assert told["phase"] == "Succeeded"


def test_errors_that_are_not_to_be_retried_are_not(product: Product) -> None:
    found = product.run("no-retry", "taskflow.fail", retryPolicy={"maxAttempts": 5, "noRetryOn": ["RuntimeError"]})
    assert found["status"]["attempt"] == 1
    found = product.run("other-retry", "taskflow.fail", retryPolicy={"maxAttempts": 5, "retryOn": ["ConnectionError"]})
    assert found["status"]["attempt"] == 1


def test_timers_survive_an_operator_restart(product: Product) -> None:
    product.apply(
        task("timer-before", "taskflow.echo", notBefore=at(5)),
        task("timer-deadline", "taskflow.fail", activeDeadlineSeconds=5, retryPolicy={"backoffSeconds": 60}),
    )
    product.in_phase("timer-before", "Pending")
    product.in_phase("timer-deadline", "Pending")
    product.stack.stop("operator")
    product.stack.start("operator")
    assert product.finished("timer-before")["status"]["phase"] == "Succeeded"
    assert product.finished("timer-deadline")["status"]["reason"] == "DeadlineExceeded"


@pytest.mark.parametrize(
    ("field", "value"),
    [("handler", "taskflow.sleep"), ("args", [2]), ("kwargs", {"value": 2}), ("notBefore", "2030-01-01T00:00:00Z")],
)
def test_what_is_wanted_cannot_be_changed(product: Product, field: str, value: Any) -> None:
    product.apply(task("immutable", "taskflow.echo", args=[{"x": [1, None]}]))
    said = product.kubectl(
        "patch", "tft", "immutable", "--type=merge", "-p", json.dumps({"spec": {field: value}}), check=False
    )
    assert f"{field} is immutable; delete this Task and create another one" in said


def test_a_change_that_changes_nothing_does_not_hide_the_conditions(product: Product, tmp_path: Path) -> None:
    """`kubectl wait` looks at no condition of an older generation of the specification."""
    gate = tmp_path / "gate"
    kwargs = {"record": str(tmp_path / "record"), "path": str(gate)}
    product.apply(task("seen-again", "e2e.wait_for_file", kwargs=kwargs))
    product.in_phase("seen-again", "Running")
    product.kubectl("patch", "tft", "seen-again", "--type=merge", "-p", '{"spec": {"priority": 9}}')
    product.kubectl("wait", "tft/seen-again", "--for=condition=Running", "--timeout=20s")
    found = product.task("seen-again")
    assert found["metadata"]["generation"] == found["status"]["observedGeneration"] == 2
    gate.touch()
    assert product.finished("seen-again")["status"]["attempt"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"cancel": True},
        {"suspend": True},
        {"priority": 9},
        {"activeDeadlineSeconds": 60},
        {"ttlSecondsAfterFinished": 600},
    ],
    ids=lambda change: next(iter(change)),
)
def test_kubectl_wait_returns_for_a_finished_task_that_was_changed(product: Product, change: dict[str, Any]) -> None:
    name = f"late-{next(iter(change)).lower()}"
    ended = product.run(name, "taskflow.echo")
    patch(product, name, **change)
    product.kubectl("wait", "--for=condition=Finished", f"tft/{name}", "--timeout=30s")
    after = product.task(name)
    assert after["metadata"]["generation"] == 2
    assert after["status"]["observedGeneration"] == 2
    assert after["status"]["phase"] == ended["status"]["phase"] == "Succeeded"


def test_kubectl_wait_returns_for_a_task_that_was_changed_around_its_end(product: Product) -> None:
    """Whichever is first, the change or the end: nobody can tell, so both orders have to be right."""
    names = [f"race-{number}" for number in range(12)]
    for name in names:
        product.apply(task(name, "taskflow.echo"))
        patch(product, name, priority=5)
    for name in names:
        product.kubectl("wait", "--for=condition=Finished", f"tft/{name}", "--timeout=30s")


HELD = {"finalizers": ["example.com/hold"]}


def release(product: Product, *names: str) -> None:
    for name in names:
        product.kubectl("patch", "tft", name, "--type=merge", "-p", json.dumps({"metadata": {"finalizers": None}}))


def test_a_deleted_task_that_a_finalizer_holds_does_not_start(product: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    kwargs = {"record": str(record), "seconds": 0}
    later = task("deleted-later", "e2e.recorded_sleep", kwargs=kwargs, notBefore=at(3600))
    array = task("deleted-array", "e2e.recorded_sleep", args=[str(record)], array={"count": 3}, notBefore=at(3600))
    for manifest in (later, array):
        manifest["metadata"] |= HELD
        product.apply(manifest)
        product.kubectl("delete", "tft", manifest["metadata"]["name"], "--wait=false")
    for name in ("deleted-later", "deleted-array"):
        found = product.finished(name)
        assert (found["status"]["phase"], found["status"]["message"]) == (
            "Cancelled",
            "cancelled, because the Task is being deleted",
        )
    release(product, "deleted-later", "deleted-array")
    assert not record.exists()


@pytest.mark.parametrize("array", [{}, {"array": {"count": 1}}], ids=["task", "array"])
def test_a_foreground_deletion_stops_what_runs(product: Product, tmp_path: Path, array: dict[str, Any]) -> None:
    name, record = f"deleted-{len(array)}", tmp_path / "record"
    args: list[Any] = [] if array else [60]
    manifest = task(name, "e2e.recorded_sleep", args=[str(record), *args], **array)
    if array:
        manifest = task(name, "arrays.work", args=[str(tmp_path), {}, 60], **array)
    manifest["metadata"] |= HELD
    product.apply(manifest)
    product.in_phase(name, "Running")
    product.kubectl("delete", "tft", name, "--cascade=foreground", "--wait=false")
    assert product.finished(name)["status"]["phase"] == "Cancelled"
    release(product, name)
    eventually(lambda: product.kubectl("get", "tft", name, check=False), lambda text: "NotFound" in text)
