"""Tasks in pods of their own: the same manifest, the same promises, another place."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from taskflow_core.domain import naming
from taskflow_core.domain.naming import keys_of
from taskflow_core.domain.task import Task
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.settings import RedisSettings
from taskflow_operator.tasks.snapshots import current_attempt
from tests.api_server import JOBS, PODS
from tests.e2e.product import Product, condition, eventually, records, task

pytestmark = pytest.mark.e2e

QUEUE = "alone"
ONE_TRY = {"maxAttempts": 1}
SOON = {"maxAttempts": 3, "backoffSeconds": 0}


def pool(name: str, **container: Any) -> dict[str, Any]:
    variables = {"TASKFLOW_WORKER_HANDLERS": "e2e_handlers,e2e_sdk", "TASKFLOW_WORKER_STOP_GRACE_SECONDS": "2"}
    env = [{"name": key, "value": value} for key, value in variables.items()]
    containers = [{"name": "worker", "env": env, **container}]
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {
            "queues": [name],
            "scaling": {"maxReplicas": 2},
            "template": {"spec": {"terminationGracePeriodSeconds": 12, "containers": containers}},
        },
    }


@pytest.fixture(scope="module")
def alone(product: Product) -> Iterator[Product]:
    """A pool without a warm worker, which isolated Tasks are no reason to start."""
    product.apply(pool(QUEUE))
    yield product
    found = json.loads(product.kubectl("get", "tfp", QUEUE, "-o", "json"))
    product.kubectl("delete", "tfp", QUEUE)
    assert "lastDecision" not in found["status"], "an isolated Task was counted as demand of the pool's own workers"


def isolated(name: str, handler: str, **spec: Any) -> dict[str, Any]:
    return task(name, handler, **{"queue": QUEUE, "isolation": "Pod", **spec})


def start(alone: Product, name: str, handler: str, folder: Path, **spec: Any) -> Path:
    """Apply a Task whose handler keeps a record, wait until it runs, return the record."""
    record = folder / f"{name}.record"
    alone.apply(isolated(name, handler, kwargs={"record": str(record), **spec.pop("kwargs", {})}, **spec))
    eventually(lambda: records(record, "start"), lambda found: len(found) == 1)
    return record


def listed(product: Product, kind: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    label = f"{naming.LABEL_TASK_UID}={found['metadata']['uid']}"
    return product.api_server.list(kind, label)


def main_process(child: int) -> int:
    """The pod's own process, whose child runs the handler."""
    return int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def cancel(product: Product, name: str) -> None:
    product.kubectl("patch", "tft", name, "--type=merge", "-p", '{"spec": {"cancel": true}}')


def log_text(product: Product, found: dict[str, Any]) -> str:
    prefix = f"default/{found['metadata']['uid']}/{found['status']['attempt']}/logs/"
    return "".join(product.objects().get_bytes(each.key).decode() for each in product.objects().list(prefix))


def test_it_runs_in_a_pod_of_its_own_with_result_log_and_artifact(alone: Product, tmp_path: Path) -> None:
    alone.objects().put_bytes("default/in/alone.txt", b"abc")
    found = alone.run(
        "alone-upper",
        "e2e.upper",
        queue=QUEUE,
        isolation="Pod",
        inputs=[{"name": "text.txt", "key": "in/alone.txt"}],
        outputs=[{"name": "upper.txt"}],
    )
    assert (found["status"]["phase"], found["status"]["result"]) == ("Succeeded", 3)
    assert alone.objects().get_bytes(found["status"]["outputs"][0]["key"]) == b"ABC"
    (job,) = listed(alone, JOBS, found)
    (pod,) = listed(alone, PODS, found)
    assert found["status"]["worker"].startswith(pod["metadata"]["name"])
    assert naming.LABEL_POOL not in pod["metadata"]["labels"]
    eventually(lambda: listed(alone, JOBS, found), lambda jobs: all(each["status"].get("succeeded") for each in jobs))
    assert job["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
    gate = tmp_path / "gate"
    gate.touch()
    start(alone, "alone-talk", "sdk.talk", tmp_path, kwargs={"gate": str(gate)})
    assert "stdout printed" in log_text(alone, alone.finished("alone-talk"))


def test_the_pod_tells_neither_the_payload_nor_a_secret(alone: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start(alone, "alone-quiet", "e2e.wait_for_file", tmp_path, kwargs={"path": str(gate)})
    found = alone.task("alone-quiet")
    shown = json.dumps([*listed(alone, JOBS, found), *listed(alone, PODS, found)])
    assert str(gate) not in shown
    assert alone.stack.env()["TASKFLOW_S3_SECRET_KEY"] not in shown
    assert "--once" in shown
    gate.touch()
    alone.finished("alone-quiet")


def test_another_attempt_is_another_pod(alone: Product) -> None:
    found = alone.run("alone-retry", "taskflow.fail", queue=QUEUE, isolation="Pod", args=["no", 2], retryPolicy=SOON)
    assert (found["status"]["phase"], found["status"]["attempt"]) == ("Succeeded", 2)
    pods = {pod["metadata"]["labels"][naming.LABEL_ATTEMPT]: pod for pod in listed(alone, PODS, found)}
    assert sorted(pods) == ["1", "2"]
    assert found["status"]["worker"].startswith(pods["2"]["metadata"]["name"])


@pytest.mark.parametrize(("handler", "trace"), [("sdk.polite", "stopped"), ("sdk.deaf", "program")])
def test_it_can_be_cancelled_while_it_runs(alone: Product, tmp_path: Path, handler: str, trace: str) -> None:
    name = f"alone-cancel-{handler.removeprefix('sdk.')}"
    record = start(alone, name, handler, tmp_path)
    cancel(alone, name)
    found = alone.finished(name)
    assert found["status"]["phase"] == "Cancelled"
    assert len(records(record, trace)) == 1
    for line in records(record, "start") + records(record, trace):
        eventually(partial(gone, line["pid"]), bool)
    outcomes = [(a["outcome"], a["reason"]) for a in alone.history(name, "Cancelled")["attempts"]]
    assert outcomes == [("cancelled", "Cancelled")]


@pytest.mark.parametrize(("handler", "trace"), [("sdk.slow", "cleaned"), ("sdk.deaf", "ignored")])
def test_an_attempt_has_its_time_and_no_more(alone: Product, tmp_path: Path, handler: str, trace: str) -> None:
    name = f"alone-timeout-{handler.removeprefix('sdk.')}"
    record = start(alone, name, handler, tmp_path, attemptTimeoutSeconds=1, retryPolicy=ONE_TRY)
    found = alone.finished(name)
    assert found["status"]["reason"] == "AttemptTimeout"
    assert len(records(record, trace)) == 1
    eventually(partial(gone, records(record, "start")[0]["pid"]), bool)
    outcomes = [(a["outcome"], a["reason"]) for a in alone.history(name, "Failed")["attempts"]]
    assert outcomes == [("failed", "AttemptTimeout")]


@pytest.mark.parametrize(
    ("whom", "words"), [("main", "ended with exit code 137"), ("child", "the process that ran the handler died")]
)
def test_a_kill_costs_one_attempt_and_the_next_has_a_pod_of_its_own(
    alone: Product, tmp_path: Path, whom: str, words: str
) -> None:
    name, gate = f"alone-kill-{whom}", tmp_path / "gate"
    record = start(alone, name, "e2e.wait_for_file", tmp_path, kwargs={"path": str(gate)}, retryPolicy=SOON)
    child = records(record, "start")[0]["pid"]
    os.kill(main_process(child) if whom == "main" else child, signal.SIGKILL)
    eventually(partial(gone, child), bool)
    eventually(lambda: records(record, "start"), lambda found: len(found) == 2)
    gate.touch()
    found = alone.finished(name)
    assert (found["status"]["phase"], found["status"]["attempt"]) == ("Succeeded", 2)
    assert found["status"]["lastError"]["reason"] == "WorkerLost"
    assert words in found["status"]["lastError"]["message"]
    assert [line["attempt"] for line in records(record, "start")] == [1, 2]
    assert len(records(record, "end")) == 1


def test_a_pod_that_is_deleted_hands_its_attempt_back(alone: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    kwargs = {"path": str(gate)}
    record = start(alone, "alone-drain", "e2e.wait_for_file", tmp_path, kwargs=kwargs, retryPolicy=ONE_TRY)
    (pod,) = listed(alone, PODS, alone.task("alone-drain"))
    alone.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    eventually(lambda: records(record, "start"), lambda found: len(found) == 2)
    gate.touch()
    found = alone.finished("alone-drain")
    assert (found["status"]["phase"], found["status"]["handbacks"]) == ("Succeeded", 1)
    assert found["status"]["lastError"]["reason"] == "Drain"


def test_with_the_task_goes_its_pod(alone: Product, tmp_path: Path) -> None:
    record = start(alone, "alone-deleted", "sdk.deaf", tmp_path)
    found = alone.task("alone-deleted")
    alone.kubectl("delete", "tft", "alone-deleted")
    eventually(partial(gone, records(record, "start")[0]["pid"]), bool)
    for kind in (JOBS, PODS):
        eventually(partial(listed, alone, kind, found), lambda items: items == [])
    assert len(records(record, "start")) == 1


async def enter(product: Product, found: dict[str, Any]) -> None:
    """What an operator does first with an attempt."""
    client = connect_async(RedisSettings.model_validate({"url": product.stack.env()["TASKFLOW_REDIS_URL"]}))
    async with client:
        await OperatorLedger(client, Namespaces(client), "unused").enqueue([current_attempt(Task.from_object(found))])


async def test_what_an_operator_entered_and_did_not_launch_the_next_one_launches(alone: Product) -> None:
    alone.stack.stop("operator", signal.SIGKILL)
    alone.apply(isolated("alone-entered", "taskflow.echo", kwargs={"value": 4}))
    await enter(alone, alone.task("alone-entered"))
    alone.stack.start("operator")
    found = alone.finished("alone-entered")
    assert (found["status"]["result"], found["status"]["attempts"]) == (4, 1)


def test_a_pod_goes_on_without_the_operator(alone: Product, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    record = start(alone, "alone-restart", "e2e.wait_for_file", tmp_path, kwargs={"path": str(gate)})
    alone.stack.stop("operator", signal.SIGKILL)
    gate.touch()
    eventually(lambda: records(record, "end"), lambda ends: len(ends) == 1)
    alone.stack.start("operator")
    found = alone.finished("alone-restart")
    assert (found["status"]["phase"], found["status"]["attempts"]) == ("Succeeded", 1)
    assert len(records(record, "start")) == 1


def test_a_pod_that_cannot_start_is_told_and_its_time_in_the_queue_ends(alone: Product) -> None:
    alone.apply(pool("alone-broken", envFrom=[{"secretRef": {"name": "nobody-made-it"}}]))
    alone.apply(isolated("alone-stuck", "taskflow.echo", queue="alone-broken", queueTimeoutSeconds=12))
    found = eventually(
        lambda: alone.task("alone-stuck"), lambda each: "nobody-made-it" in each.get("status", {}).get("message", "")
    )
    assert found["status"]["phase"] == "Queued"
    assert 'CreateContainerConfigError: secret "nobody-made-it" not found' in found["status"]["message"]
    found = alone.finished("alone-stuck")
    assert (found["status"]["reason"], found["status"]["attempts"]) == ("QueueTimeout", 0)
    alone.kubectl("delete", "tfp", "alone-broken")


def test_a_pod_that_ends_before_its_attempt_is_replaced(alone: Product) -> None:
    alone.apply(pool("alone-crash", env=[{"name": "TASKFLOW_WORKER_HANDLERS", "value": "no_such_module"}]))
    alone.apply(isolated("alone-crashed", "taskflow.echo", queue="alone-crash", kwargs={"value": 6}))
    found = eventually(
        lambda: alone.task("alone-crashed"), lambda each: "exit code 2" in each.get("status", {}).get("message", "")
    )
    assert found["status"]["phase"] == "Queued"
    alone.apply(pool("alone-crash"))
    found = alone.finished("alone-crashed")
    assert (found["status"]["result"], found["status"]["attempts"]) == (6, 1)
    alone.kubectl("delete", "tfp", "alone-crash")


def test_a_pool_that_is_paused_or_missing_makes_no_pods(alone: Product) -> None:
    alone.apply(isolated("alone-nobody", "taskflow.echo", queue="nobody-serves"))
    held = alone.in_phase("alone-nobody", "Pending")
    assert condition(held, "Queued")["reason"] == "NoWorkerPool"
    alone.kubectl("delete", "tft", "alone-nobody")
    paused = pool("alone-paused")
    paused["spec"]["paused"] = True
    alone.apply(paused)
    alone.apply(isolated("alone-waits", "taskflow.echo", queue="alone-paused"))
    found = eventually(
        lambda: alone.task("alone-waits"), lambda each: "is paused" in each.get("status", {}).get("message", "")
    )
    assert listed(alone, JOBS, found) == []
    alone.apply(pool("alone-paused"))
    assert alone.finished("alone-waits")["status"]["phase"] == "Succeeded"
    alone.kubectl("delete", "tfp", "alone-paused")


def test_nothing_is_left(alone: Product) -> None:
    label = naming.LABEL_TASK_UID
    for kind in (JOBS, PODS):
        eventually(
            lambda kind=kind: alone.api_server.list(kind, label),  # type: ignore[misc]
            lambda items: items == [],
            120,
        )
    with redis.Redis.from_url(alone.stack.env()["TASKFLOW_REDIS_URL"], decode_responses=True) as client:
        keys = keys_of("default")
        assert list(client.scan_iter(keys.once_prefix + "*")) == []
        assert client.zcard(keys.ledger) + client.zcard(keys.leases) + client.hlen(keys.stops) == 0
