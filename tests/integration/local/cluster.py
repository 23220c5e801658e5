"""What the tests of the node say to a cluster: kubectl, manifests, and waiting for a condition."""

import json
import os
import subprocess
import textwrap
import time
from collections.abc import Callable
from typing import Any, TypeVar

from taskflow_local.processes import stat_of
from taskflow_local.stack import Stack

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "node")
T = TypeVar("T")


def kubectl(stack: Stack, *arguments: str, manifest: object = None) -> str:
    answer = subprocess.run(
        ["kubectl", *arguments],
        input=None if manifest is None else json.dumps(manifest),
        capture_output=True,
        text=True,
        env=os.environ | stack.env(),
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def apply(stack: Stack, manifest: object) -> None:
    kubectl(stack, "apply", "-f", "-", manifest=manifest)


def pods(stack: Stack, app: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(kubectl(stack, "get", "pods", "-l", f"app={app}", "-o", "json"))["items"]
    return found


def wait_for(what: str, question: Callable[[], T], seconds: float = 20) -> T:
    """Ask until the answer is true-like; fail with the last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s, last answer {answer!r}"
        time.sleep(0.1)
    return answer


def script(text: str) -> list[str]:
    return ["python", "-u", "-c", textwrap.dedent(text)]


def make_pod(name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": pod_spec(command, **spec),
    }


def pod_spec(command: list[str], **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "ignored", "command": command} | spec.pop("container", {})
    return {"terminationGracePeriodSeconds": 10, "containers": [container], **spec}


def make_deployment(name: str, command: list[str], replicas: int, **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(command, **spec)},
        },
    }


def status_of(stack: Stack, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl(stack, "get", "pod", name, "-o", "json")).get("status", {})
    return found


def container_state(stack: Stack, name: str) -> dict[str, Any]:
    statuses = status_of(stack, name).get("containerStatuses", [])
    return dict(statuses[0]["state"]) if statuses else {}


def is_waiting_for(stack: Stack, name: str, reason: str) -> bool:
    return bool(container_state(stack, name).get("waiting", {}).get("reason") == reason)


def running_pid(pod: dict[str, Any]) -> int:
    return int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def process_exists(pid: int) -> bool:
    """A zombie is no process any more: who reaps an orphan is the business of the machine's init."""
    found = stat_of(pid)
    return found is not None and found.state not in "ZX"
