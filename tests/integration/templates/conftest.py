from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskflow_local.stack import Stack
from tests.integration.crds.conftest import Cluster

API = "taskflow.dev/v1alpha1"


def task(handler: str, **spec: Any) -> dict[str, Any]:
    metadata = {"generateName": "task-", "namespace": "default"}
    return {"apiVersion": API, "kind": "Task", "metadata": metadata, "spec": {"handler": handler, **spec}}


def template(name: str, *handlers: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": API, "kind": "TaskTemplate", "metadata": metadata, "spec": {"handlers": list(handlers)}}


def refusal(cluster: Cluster, manifest: dict[str, Any]) -> str:
    """What kubectl says about a manifest; empty if it is admitted."""
    done = cluster.run("create", "--dry-run=server", "-f", "-", manifest=manifest)
    return done.stderr.strip() if done.returncode else ""


def apply(cluster: Cluster, manifest: dict[str, Any]) -> None:
    """Apply a TaskTemplate and wait until Tasks are held against it: the API server learns of it a moment later."""
    name = f"known.v{time.monotonic_ns()}"
    known = {"name": name, "kwargs": {"type": "object", "additionalProperties": False}}
    spec = {**manifest["spec"], "handlers": [*manifest["spec"]["handlers"], known]}
    cluster.kubectl("apply", "-f", "-", manifest={**manifest, "spec": spec})
    eventually_refused(cluster, task(name, kwargs={"unknown": 1}))


def eventually_refused(cluster: Cluster, manifest: dict[str, Any]) -> None:
    deadline = time.monotonic() + 60
    while not refusal(cluster, manifest):
        assert time.monotonic() < deadline, "it is still admitted"
        time.sleep(0.1)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    stack = Stack(Path(tmp_path_factory.mktemp("templates")) / "state", components=("etcd", "kube-apiserver"))
    try:
        stack.up(log=lambda _: None)
        stack.apply_crds()
        yield Cluster(stack)
    finally:
        stack.down(log=lambda _: None)
