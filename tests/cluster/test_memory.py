"""Want of memory, as the kernel of a real node ends it: in a worker of a pool, and in a pod of a Task's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.installation import WORK, Cluster, task
from tests.e2e.product import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
POOL = "little-memory"
LIMIT_MIB = 256
CODE = """
import time
from taskflow_worker.sdk import handler

@handler("grow")
def grow():
    held = []
    while True:
        held.append(bytearray(16 * 1024 * 1024))

@handler("rest")
def rest(seconds: int):
    time.sleep(seconds)
"""


@pytest.fixture(scope="module")
def pool(installed: Cluster) -> Iterator[Cluster]:
    """Two slots under a memory limit, with handlers from a ConfigMap."""
    meta = {"name": POOL, "namespace": WORK}
    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"memory_handlers.py": CODE}}
    container = {
        "name": "worker",
        "env": [
            {"name": "TASKFLOW_WORKER_HANDLERS", "value": "memory_handlers"},
            {"name": "PYTHONPATH", "value": "/code"},
        ],
        "volumeMounts": [{"name": "code", "mountPath": "/code", "readOnly": True}],
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": f"{LIMIT_MIB}Mi"}},
    }
    template = {"spec": {"containers": [container], "volumes": [{"name": "code", "configMap": {"name": POOL}}]}}
    spec = {"queues": [POOL], "concurrency": 2, "replicas": 1, "template": template}
    workers = {"apiVersion": "taskflow.dev/v1alpha1", "kind": "WorkerPool", "metadata": meta, "spec": spec}
    installed.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, (code, workers))))
    yield installed
    installed.kubectl("delete", "-n", WORK, f"workerpools.taskflow.dev/{POOL}", f"configmap/{POOL}", "--wait")


@pytest.mark.parametrize("isolation", ["Worker", "Pod"])
def test_an_attempt_that_ran_out_of_memory_says_so_and_names_the_limit(pool: Cluster, isolation: str) -> None:
    found = pool.run(
        f"grows-{isolation.lower()}", "grow", queue=POOL, isolation=isolation, retryPolicy={"maxAttempts": 1}
    )
    status = found["status"]
    print(f"\n{isolation}: {json.dumps(status['lastError'])}")
    assert (status["phase"], status["reason"]) == ("Failed", "OutOfMemory")
    assert f"{LIMIT_MIB} MiB" in status["lastError"]["message"]


def test_what_runs_beside_it_does_not_pay(pool: Cluster) -> None:
    def status(name: str) -> dict[str, Any]:
        return dict(pool.json("-n", WORK, f"tft/{name}").get("status") or {})

    beside = task("beside", "rest", queue=POOL, kwargs={"seconds": 15}, retryPolicy={"maxAttempts": 1})
    pool.kubectl("apply", "-f", "-", stdin=json.dumps(beside))
    eventually(lambda: status("beside"), lambda seen: seen.get("phase") == "Running", 60)
    pool.run("grows-beside", "grow", queue=POOL, retryPolicy={"maxAttempts": 1})
    end = eventually(lambda: status("beside"), lambda seen: seen.get("phase") in ("Succeeded", "Failed"), 120)
    assert end["phase"] == "Succeeded", end
