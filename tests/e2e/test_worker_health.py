"""What people see when workers do not start, do not reach Redis, or die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.api_server import TASKS
from tests.e2e.conftest import MISTYPED
from tests.e2e.own_pool import OwnPool
from tests.e2e.own_stack import CODE
from tests.e2e.product import Product, condition, eventually, task

pytestmark = pytest.mark.e2e
WRONG = "a-wrong-password"


def pool(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {"queues": [name], **fields},
    }


def with_variable(name: str, value: str) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"name": "worker", "env": [{"name": name, "value": value}]}]}}}


def message(product: Product, name: str) -> str:
    return str(product.task(name).get("status", {}).get("message", ""))


def stalled(product: Product, name: str) -> str:
    found = product.pool(name)
    if not found.get("conditions"):
        return ""
    return next((each["message"] for each in found["conditions"] if each["type"] == "Stalled"), "")


def test_a_crash_loop_is_told_with_the_last_words_of_its_container(product: Product) -> None:
    words = "ModuleNotFoundError: No module named 'no_such_handlers'"
    product.apply(pool("broken", **with_variable("TASKFLOW_WORKER_HANDLERS", "no_such_handlers")))
    product.apply(task("on-broken", "taskflow.echo", queue="broken"))
    eventually(lambda: stalled(product, "broken"), lambda text: text.endswith(words), 120)
    eventually(lambda: message(product, "on-broken"), lambda text: text.endswith(words), 30)
    why = product.get("/v1/namespaces/default/tasks/on-broken/why")
    assert why["reason"] == "PoolStalled"
    assert why["message"].endswith(words)
    product.kubectl("delete", "tft/on-broken", "tfp/broken")


def test_a_worker_with_a_wrong_password_is_never_ready_and_everybody_says_why(product: Product) -> None:
    url = urlsplit(product.stack.env()["TASKFLOW_REDIS_URL"])
    wrong = urlunsplit(url._replace(netloc=f"{MISTYPED}:{WRONG}@{url.hostname}:{url.port}"))
    words = f"Redis at {url.hostname}:{url.port} refuses the login of this worker"
    product.apply(pool("mute", **with_variable("TASKFLOW_REDIS_URL", wrong)))
    product.apply(task("on-mute", "taskflow.echo", queue="mute"))
    product.apply(task("on-mute-alone", "taskflow.echo", queue="mute", isolation="Pod"))
    seen: list[dict[str, Any]] = []

    def told() -> str:
        seen.append(product.pool("mute"))
        return stalled(product, "mute")

    eventually(told, lambda text: words in text, 180)
    assert {each.get("readyReplicas", 0) for each in seen} == {0}, "a worker that takes nothing was ready"
    eventually(lambda: message(product, "on-mute"), lambda text: words in text, 30)
    eventually(lambda: message(product, "on-mute-alone"), lambda text: words in text, 180)
    about = ("get", "events.events.k8s.io", "--field-selector", "regarding.name=mute", "-o", "json")
    notes = eventually(lambda: product.kubectl(*about), lambda text: words in text, 60)
    everything = [notes, product.kubectl("get", "tft,tfp,pods", "-o", "jsonpath={.items[*].status}")]
    assert not any(WRONG in each for each in everything)
    product.kubectl("delete", "tft/on-mute", "tft/on-mute-alone", "tfp/mute")


def test_a_pod_that_a_quota_refuses_is_told(product: Product) -> None:
    product.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "few"}},
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "small", "namespace": "few"},
            "spec": {"hard": {"pods": "0"}},
        },
    )
    for each in (
        pool("alone-in-few", replicas=0),
        task("refused", "taskflow.echo", queue="alone-in-few", isolation="Pod"),
    ):
        each["metadata"]["namespace"] = "few"
        product.apply(each)
    words = "has no pod: its pod is forbidden: exceeded quota: small, requested: pods=1"
    read = ("get", "tft/refused", "-n", "few", "-o", "jsonpath={.status.message}")
    eventually(lambda: product.kubectl(*read), lambda text: words in text, 90)
    product.kubectl("delete", "namespace", "few", "--wait=false")


def test_an_attempt_whose_pod_was_deleted_with_force_says_so(product: Product) -> None:
    own = OwnPool(product, "forced", replicas=1)
    own.has(1)
    (name,) = own.run(600)
    product.in_phase(name, "Running", 120)
    (pod,) = own.pods()
    product.kubectl("delete", f"pod/{pod}", "--force", "--grace-period=0")
    found = eventually(lambda: product.task(name), lambda found: found["status"]["attempt"] == 2, 60)
    error = found["status"]["lastError"]
    assert error["reason"] == "PodDeleted"
    assert error["message"] == f"pod {pod} on node local was deleted with force, while its container ran"
    product.kubectl("delete", f"tft/{name}", "tfp/forced")


class HandMadePod:
    """A pod of a node that this stack does not have: its worker is a process of the test, which also says what a
    kubelet would say of it.
    """

    def __init__(self, product: Product, name: str, queue: str) -> None:
        self.product, self.name = product, name
        labels = {"app.kubernetes.io/managed-by": "taskflow-operator", "taskflow.dev/pool": queue}
        container = {"name": "worker", "image": "w", "resources": {"limits": {"memory": "64Mi"}}}
        product.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels},
                "spec": {"nodeName": "elsewhere", "containers": [container]},
            }
        )
        self.started = datetime.now(UTC)
        self.say({"running": {"startedAt": self._time(self.started)}})
        variables = {
            "NAME": name,
            "NAMESPACE": "default",
            "QUEUES": queue,
            "CONCURRENCY": "2",
            "HANDLERS": "e2e_handlers",
        }
        variables = {f"TASKFLOW_WORKER_{key}": value for key, value in variables.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskflow_worker"],
            env={**os.environ, **product.stack.env(), **variables, "PYTHONPATH": str(CODE)},
            start_new_session=True,
        )

    @staticmethod
    def _time(moment: datetime) -> str:
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def say(self, state: dict[str, Any]) -> None:
        worker = {"name": "worker", "image": "w", "imageID": "", "ready": "running" in state, "restartCount": 0}
        status = {"phase": "Running", "containerStatuses": [{**worker, "state": state}]}
        patch = json.dumps({"status": status})
        self.product.kubectl("patch", "pod", self.name, "--subresource=status", "--type=merge", "-p", patch)

    def run_out_of_memory(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        times = {"startedAt": self._time(self.started), "finishedAt": self._time(datetime.now(UTC))}
        self.say({"terminated": {"exitCode": 137, "reason": "OOMKilled", **times}})

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.product.kubectl("delete", f"pod/{self.name}", "--force", "--grace-period=0", check=False)


def test_attempts_of_a_container_that_ran_out_of_memory_say_so_and_do_not_pay_for_each_other(product: Product) -> None:
    product.apply(pool("small", replicas=0))
    made = HandMadePod(product, "small-by-hand", "small")
    record = product.folder / "small.record"
    names = ["in-small-1", "in-small-2"]
    try:
        for name in names:
            policy = {"maxAttempts": 1}
            product.apply(task(name, "e2e.recorded_sleep", queue="small", args=[str(record), 600], retryPolicy=policy))
        for name in names:
            product.in_phase(name, "Running", 120)
        made.run_out_of_memory()
        for name in names:
            found = eventually(lambda name=name: product.task(name), lambda found: found["status"]["attempt"] == 2, 60)  # type: ignore[misc]
            status = found["status"]
            error = status["lastError"]
            assert (error["reason"], status["handbacks"]) == ("OutOfMemory", 1)
            assert (
                "pod small-by-hand on node elsewhere used its memory limit of 64Mi and was killed" in error["message"]
            )
            assert "isolation: Pod. 1 more attempt ran in the container" in error["message"]
            assert condition(found, "Running")["reason"] == "OutOfMemory"
    finally:
        made.close()
        product.kubectl("delete", *(f"tft/{name}" for name in names), "tfp/small", check=False)
    assert not [each for each in product.api_server.list(TASKS) if each["metadata"]["name"] in names]
