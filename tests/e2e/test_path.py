from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.product import Product, condition, eventually, task

pytestmark = pytest.mark.e2e


def test_an_applied_task_runs_on_a_warm_worker_and_comes_back_succeeded(product: Product) -> None:
    found = product.run("echo", "taskflow.echo", kwargs={"value": {"n": [1, None, "ü"]}})
    status = found["status"]
    assert status["phase"] == "Succeeded"
    assert status["result"] == {"n": [1, None, "ü"]}
    assert status["attempt"] == 1
    assert status["observedGeneration"] == found["metadata"]["generation"]
    assert condition(found, "Complete")["status"] == "True"
    assert "finalizers" not in found["metadata"]
    assert set(found["metadata"].get("annotations", {})) == {"kubectl.kubernetes.io/last-applied-configuration"}
    told = product.history("echo", "Succeeded")
    assert [event["kind"] for event in told["timeline"]] == ["queued", "started", "succeeded", "settled"]


def test_an_input_is_fetched_and_an_output_is_stored_under_the_attempt(product: Product, tmp_path: Path) -> None:
    product.objects().put_bytes("default/in/text.txt", b"hello")
    found = product.run(
        "upper",
        "e2e.upper",
        inputs=[{"name": "text.txt", "key": "in/text.txt"}],
        outputs=[{"name": "upper.txt", "contentType": "text/plain"}],
    )
    assert found["status"]["result"] == 5
    (output,) = found["status"]["outputs"]
    assert output["key"] == f"default/{found['metadata']['uid']}/1/upper.txt"
    assert output["sizeBytes"] == 5
    assert product.objects().get_bytes(output["key"]) == b"HELLO"


def test_a_task_longer_than_a_second_is_shown_running(product: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    product.apply(task("long", "e2e.wait_for_file", kwargs={"record": str(tmp_path / "r"), "path": str(gate)}))
    running = product.in_phase("long", "Running")
    assert condition(running, "Running")["reason"] == "Started"
    assert running["status"]["worker"].startswith("main-workers-")
    gate.touch()
    assert product.finished("long")["status"]["phase"] == "Succeeded"


def test_a_failed_attempt_is_followed_by_another_after_its_backoff(product: Product) -> None:
    found = product.run(
        "flaky", "taskflow.fail", kwargs={"until_attempt": 2}, retryPolicy={"backoffSeconds": 1, "maxAttempts": 2}
    )
    assert found["status"]["phase"] == "Succeeded"
    assert found["status"]["attempt"] == 2
    assert found["status"]["lastError"] == {
        "attempt": 1,
        "reason": "HandlerError",
        "type": "RuntimeError",
        "message": "asked to fail",
        "trace": found["status"]["lastError"]["trace"],
    }
    assert "builtin.py" in found["status"]["lastError"]["trace"]
    outcomes = [(a["attempt"], a["outcome"]) for a in product.history("flaky", "Succeeded")["attempts"]]
    assert sorted(outcomes) == [(1, "failed"), (2, "succeeded")]


def test_a_task_deleted_while_it_waits_never_runs(product: Product, tmp_path: Path) -> None:
    record = tmp_path / "record"
    gates = tmp_path / "gate"
    for name in ("block-1", "block-2"):
        product.apply(task(name, "e2e.wait_for_file", kwargs={"record": str(tmp_path / "b"), "path": str(gates)}))
    product.in_phase("block-1", "Running")
    product.in_phase("block-2", "Running")
    product.apply(task("withdrawn", "e2e.recorded_sleep", kwargs={"record": str(record), "seconds": 0}))
    product.in_phase("withdrawn", "Queued")
    product.kubectl("delete", "tft", "withdrawn")
    # Until the operator has heard of it, a worker may still start it.
    eventually(
        lambda: product.get("/v1/namespaces/default/tasks/withdrawn")["deletedAt"], lambda when: when is not None
    )
    gates.touch()
    product.finished("block-1")
    product.finished("block-2")
    # The queue is served in order, so whatever runs after it has seen its message refused.
    product.run("after-withdrawn", "taskflow.echo")
    assert not record.exists()


def test_kubectl_shows_what_a_person_wants_to_know(product: Product) -> None:
    product.run("shown", "taskflow.echo")
    lines = product.kubectl("get", "tft", "shown").splitlines()
    assert lines[0].split() == ["NAME", "PHASE", "QUEUE", "ATTEMPT", "ITEMS", "REASON", "AGE"]
    assert lines[1].split()[:5] == ["shown", "Succeeded", "default", "1", "Succeeded"]
    assert "task.taskflow.dev/shown" in product.kubectl("get", "taskflow", "-o", "name")
    assert "Positional arguments, any JSON" in product.kubectl("explain", "tasks.taskflow.dev.spec.args")


def test_scaling_a_pool_changes_its_workers_and_status(product: Product) -> None:
    product.kubectl("scale", "tfp/main", "--replicas=2")
    product.kubectl("wait", "tfp/main", "--for=jsonpath={.status.readyReplicas}=2", "--timeout=60s")
    product.kubectl("scale", "tfp/main", "--replicas=1")
    product.kubectl("wait", "tfp/main", "--for=jsonpath={.status.replicas}=1", "--timeout=60s")
    product.kubectl("wait", "tfp/main", "--for=condition=Ready", "--timeout=60s")
