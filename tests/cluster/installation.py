"""The product on a real cluster, as its users reach it: helm, kubectl, REST through the Service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from taskflow_local.programs import Resolver
from tests.e2e.product import eventually

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "charts" / "taskflow"
VALUES = os.environ.get("VALUES_E2E", str(HERE / "values.yaml"))
NAMESPACE = "taskflow-system"
WORK = "taskflow-work"
RELEASE = "taskflow"


@dataclass(frozen=True)
class Cluster:
    kubeconfig: str
    helm_path: Path = field(default_factory=lambda: Resolver(log=lambda _: None).resolve("helm"))

    def _run(self, command: list[str], stdin: str, *, check: bool) -> str:
        environment = os.environ | {"KUBECONFIG": self.kubeconfig}
        done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout + ("" if check else done.stderr)

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        return self._run(["kubectl", *arguments], stdin, check=check)

    def helm(self, *arguments: str, check: bool = True) -> str:
        return self._run([str(self.helm_path), "--namespace", NAMESPACE, *arguments], "", check=check)

    def install(self, command: str, *settings: str) -> str:
        """`helm install` or `upgrade`; returns when all of it is there."""
        sets = [argument for each in (*_POOL, *settings) for argument in ("--set", each)]
        waits = ("--wait", "--wait-for-jobs", "--timeout", "5m")
        return self.helm(command, RELEASE, str(CHART), "--values", VALUES, *waits, *sets)

    def json(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def run(self, name: str, handler: str, **spec: Any) -> dict[str, Any]:
        """Apply a Task, wait until it finished, return it."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(task(name, handler, **spec)))
        self.kubectl("wait", "-n", WORK, f"tasks.taskflow.dev/{name}", "--for=condition=Finished", "--timeout=120s")
        return self.json("-n", WORK, f"tasks.taskflow.dev/{name}")

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Those that are not on their way out."""
        found = self.json("-n", NAMESPACE, "pods", "-l", f"app.kubernetes.io/component={component}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        return dict(self.json("-n", namespace, f"secret/{name}")["data"])

    @contextmanager
    def api(self) -> Iterator[Api]:
        """The REST API through its Service, with a token that may do all with Tasks in the namespace of workers."""
        self.kubectl("create", "serviceaccount", "caller", "-n", WORK, check=False)
        self.kubectl(
            "create",
            "rolebinding",
            "caller",
            "-n",
            WORK,
            "--clusterrole=edit",
            f"--serviceaccount={WORK}:caller",
            check=False,
        )
        token = self.kubectl("create", "token", "caller", "-n", WORK).strip()
        command = ["kubectl", "port-forward", "-n", NAMESPACE, f"service/{RELEASE}-api", ":80"]
        environment = os.environ | {"KUBECONFIG": self.kubeconfig}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None
                port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
                assert port is not None
                yield Api(f"http://127.0.0.1:{port[1]}", token)
            finally:
                forward.terminate()


_POOL = (f"workerNamespaces={{{WORK}}}", f"workerPool.namespace={WORK}")


@dataclass(frozen=True)
class Api:
    address: str
    token: str

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


def task(name: str, handler: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": WORK}
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "Task",
        "metadata": metadata,
        "spec": {"handler": handler, **spec},
    }


class Load:
    """Tasks at a steady rate, created in the background as a list each second."""

    def __init__(self, cluster: Cluster, name: str, rate: int) -> None:
        self._cluster, self._name, self._rate = cluster, name, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._create, daemon=True)
        self.names: list[str] = []
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _create(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            names = [f"{self._name}-{len(self.names) + each}" for each in range(self._rate)]
            items = [task(name, "taskflow.sleep", kwargs={"seconds": 0.05}) for name in names]
            try:
                self._cluster.kubectl("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, items)))
            except AssertionError as error:
                self.refused.append(str(error))
            self.names += names
            self._stop.wait(began + 1 - time.monotonic())


def all_succeeded(cluster: Cluster, load: Load, *others: str) -> None:
    """All of the load, and the other Tasks named, were created and succeed; prints which took more than one attempt."""
    assert load.refused == []
    names = [*load.names, *others]

    def unfinished() -> set[str]:
        items = cluster.json("-n", WORK, "tasks.taskflow.dev")["items"]
        ended = {"Succeeded", "Failed", "Cancelled"}
        return set(names) - {i["metadata"]["name"] for i in items if i.get("status", {}).get("phase") in ended}

    eventually(unfinished, lambda left: not left, 120)
    items = {item["metadata"]["name"]: item for item in cluster.json("-n", WORK, "tasks.taskflow.dev")["items"]}
    assert {name: items[name]["status"]["phase"] for name in names} == dict.fromkeys(names, "Succeeded")
    again = {name: items[name]["status"] for name in names if items[name]["status"]["attempt"] != 1}
    print(f"\n{len(names)} Tasks under way: none lost, none failed; more than one attempt: {again or 'none'}")
