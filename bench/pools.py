"""The pools of a benchmark: one that serves it, and one that only collects a crowd of Tasks."""

from __future__ import annotations

from typing import Any

from bench.tasks import body, create, until_finished
from taskflow_core.domain import naming
from taskflow_core.kube.client import KubeClient, resource_path

ENDED = "2026-01-01T00:00:00Z"
SUCCEEDED: dict[str, Any] = {
    "phase": "Succeeded",
    "observedGeneration": 1,
    "attempt": 1,
    "conditions": [
        {
            "type": kind,
            "status": "True",
            "reason": "Succeeded",
            "message": "",
            "lastTransitionTime": ENDED,
            "observedGeneration": 1,
        }
        for kind in ("Accepted", "Complete", "Finished")
    ],
}
"""A status of the usual size."""


async def make_pool(kube: KubeClient, namespace: str, **spec: Any) -> None:
    """Create the pool `bench` with two slots and the handlers of the benchmarks. `spec` overrides its fields."""
    container = {"name": "worker", "env": [{"name": "TASKFLOW_WORKER_HANDLERS", "value": "bench_handlers"}]}
    template = {"spec": {"containers": [container]}}
    pool = {
        "apiVersion": naming.API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": "bench"},
        "spec": {"queues": ["default"], "concurrency": 2, "template": template, **spec},
    }
    await kube.request("POST", resource_path(f"apis/{naming.API_VERSION}", "workerpools", namespace), pool)


async def make_pools(kube: KubeClient, crowd: str) -> None:
    """Create a warm pool in `default`, and one without pods for the queue `crowded` in the crowd's namespace."""
    await make_pool(kube, "default")
    await make_pool(kube, crowd, queues=["crowded"], replicas=0)
    await warm_up(kube)


async def warm_up(kube: KubeClient) -> None:
    """Wait until a worker has run a Task."""
    await create(kube, "default", body("warm-up", "bench.noop"))
    await until_finished(kube, "default", ["warm-up"])
