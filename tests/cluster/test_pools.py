"""Pools of real pods: from zero to ten and back under a burst, and a new template in the middle of running work.

BURST (Tasks, 300; the whole proof takes 2000) and ROLLOUT (Tasks, 100; 500) choose the size.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from tests.cluster.installation import WORK, Cluster, task
from tests.e2e.product import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
BURST = int(os.environ.get("BURST", "300"))
ROLLOUT = int(os.environ.get("ROLLOUT", "100"))
SLOTS, MOST = 8, 10
SPREAD_SECONDS = max(1, 60 * BURST // 2000)
"""At the same rate, whatever the size: it takes all of the pods."""
THREADS, GRACE_SECONDS = 50, 90


def _pool(name: str, env: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "worker",
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        # Ten of them fit a small node: they sleep.
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    }
    template = {"spec": {"containers": [container], "terminationGracePeriodSeconds": GRACE_SECONDS}}
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name, "namespace": WORK},
        "spec": {"queues": [name], "template": template, **spec},
    }


@contextmanager
def _running(cluster: Cluster, pool: dict[str, Any]) -> Iterator[str]:
    name = pool["metadata"]["name"]
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pool))
    yield name
    cluster.kubectl("delete", "-n", WORK, f"workerpools.taskflow.dev/{name}", "--wait")


def _status(cluster: Cluster, name: str) -> dict[str, Any]:
    return dict(cluster.json("-n", WORK, f"workerpools.taskflow.dev/{name}").get("status") or {})


def _create(cluster: Cluster, tasks: list[dict[str, Any]]) -> None:
    if tasks:
        cluster.kubectl("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, tasks)))


def _ended(cluster: Cluster, queue: str) -> list[dict[str, Any]]:
    items = cluster.json("-n", WORK, "tasks.taskflow.dev")["items"]
    ended = ("Succeeded", "Failed", "Cancelled")
    return [i for i in items if i["spec"].get("queue") == queue and i.get("status", {}).get("phase") in ended]


def _all_at_the_first_attempt(found: list[dict[str, Any]]) -> None:
    assert {item["status"]["phase"] for item in found} == {"Succeeded"}
    again = {item["metadata"]["name"]: item["status"] for item in found if item["status"]["attempt"] != 1}
    assert again == {}


def _waited(item: dict[str, Any]) -> float:
    since = datetime.fromisoformat(item["metadata"]["creationTimestamp"])
    return max((datetime.fromisoformat(item["status"]["startTime"]) - since).total_seconds(), 0)


def test_a_burst_makes_ten_pods_of_none_and_none_of_ten_and_cuts_no_task_off(installed: Cluster) -> None:
    draw = random.Random(1)
    lengths = [round(math.exp(draw.uniform(math.log(0.1), math.log(20))), 2) for _ in range(BURST)]
    scaling = {"maxReplicas": MOST, "scaleDownDelaySeconds": 10, "idleSecondsToZero": 15}
    sizes: list[tuple[int, int]] = []

    def look(name: str) -> dict[str, int]:
        replicas = int(installed.json("-n", WORK, f"deployment/{name}-workers")["spec"].get("replicas", 1))
        pods = _pods(installed, name)
        sizes.append((replicas, len(pods)))
        return {"replicas": replicas, "pods": len(pods)}

    with _running(installed, _pool("burst", concurrency=SLOTS, scaling=scaling)) as name:
        eventually(
            lambda: installed.kubectl("get", "-n", WORK, f"deployment/{name}-workers", check=False),
            lambda said: "0/0" in said,
            60,
        )
        began = time.monotonic()
        for second in range(SPREAD_SECONDS):
            numbers = range(BURST * second // SPREAD_SECONDS, BURST * (second + 1) // SPREAD_SECONDS)
            tasks = [task(f"burst-{n}", "taskflow.sleep", queue=name, kwargs={"seconds": lengths[n]}) for n in numbers]
            _create(installed, tasks)
            look(name)
            time.sleep(max(began + second + 1 - time.monotonic(), 0))
        while len(found := _ended(installed, name)) < BURST:
            look(name)
        eventually(lambda: look(name), lambda seen: seen == {"replicas": 0, "pods": 0}, GRACE_SECONDS + 60)
    _all_at_the_first_attempt(found)
    waits = sorted(map(_waited, found))
    print(
        f"\n{BURST} Tasks of 0.1-20 s: pods asked for at most {max(sizes)[0]}, at the end {sizes[-1][0]}; waited p50"
        f" {statistics.median(waits):.0f} s, most {waits[-1]:.0f} s; {time.monotonic() - began:.0f} s in all, 0 cut off"
    )
    assert max(sizes)[0] == MOST


def test_a_new_template_in_the_middle_of_running_tasks_costs_no_attempt(installed: Cluster) -> None:
    replicas = -(-ROLLOUT // THREADS)
    size = {"pool": "Threads", "concurrency": THREADS, "replicas": replicas}
    draw = random.Random(2)
    with _running(installed, _pool("rollout", {"VERSION": "1"}, **size)) as name:
        full = replicas * THREADS
        eventually(lambda: _status(installed, name), lambda status: status.get("slots") == full, 120)
        tasks = [
            task(f"rollout-{n}", "taskflow.sleep", queue=name, kwargs={"seconds": round(draw.uniform(40, 60), 2)})
            for n in range(ROLLOUT)
        ]
        _create(installed, tasks)
        eventually(lambda: _status(installed, name), lambda status: status.get("busySlots") == ROLLOUT, 60)
        former = {pod["metadata"]["name"] for pod in _pods(installed, name)}
        installed.kubectl("apply", "-f", "-", stdin=json.dumps(_pool("rollout", {"VERSION": "2"}, **size)))
        began = time.monotonic()
        eventually(lambda: {pod["metadata"]["name"] for pod in _pods(installed, name)}, former.isdisjoint, 180)
        gone = time.monotonic() - began
        found = eventually(lambda: _ended(installed, name), lambda ended: len(ended) == ROLLOUT, 120)
    _all_at_the_first_attempt(found)
    print(
        f"\n{ROLLOUT} Tasks under way when their pool got a new template: 0 cut off, "
        f"former pods gone after {gone:.0f} s"
    )


def _pods(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    return list(cluster.json("-n", WORK, "pods", "-l", f"taskflow.dev/pool={name}")["items"])
