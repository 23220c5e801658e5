from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from taskflow_core.blobs.store import ObjectStore
from taskflow_core.settings import StorageSettings
from taskflow_local.stack import Stack
from tests.api_server import POOLS, TASKS, ApiServer

T = TypeVar("T")


@dataclass(frozen=True)
class Product:
    """The whole product, as a user reaches it: by kubectl and by REST."""

    stack: Stack
    folder: Path

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            env=os.environ | self.stack.env(),
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)))

    def run(self, name: str, handler: str, **spec: Any) -> dict[str, Any]:
        """Apply a Task, wait until it finished, return it."""
        self.apply(task(name, handler, **spec))
        return self.finished(name)

    @cached_property
    def api_server(self) -> ApiServer:
        """To look often; what a user does goes by kubectl."""
        return ApiServer(self.stack.kubeconfig)

    def close(self) -> None:
        if "api_server" in self.__dict__:
            self.api_server.close()

    def finished(self, name: str, seconds: int = 60) -> dict[str, Any]:
        return eventually(lambda: self.task(name), lambda found: has_condition(found, "Finished"), seconds)

    def task(self, name: str) -> dict[str, Any]:
        return self.api_server.get(TASKS, name)

    def pool(self, name: str) -> dict[str, Any]:
        """Status of a WorkerPool."""
        return dict(self.api_server.get(POOLS, name).get("status") or {})

    def in_phase(self, name: str, phase: str, seconds: float = 30) -> dict[str, Any]:
        return eventually(lambda: self.task(name), lambda found: found.get("status", {}).get("phase") == phase, seconds)

    def get(self, path: str) -> dict[str, Any]:
        """GET from the REST API as the stack's client."""
        environment = self.stack.env()
        request = urllib.request.Request(
            environment["TASKFLOW_API_URL"] + path,
            headers={"Authorization": f"Bearer {environment['TASKFLOW_API_TOKEN']}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"GET {path}: {error.code} {error.read().decode()}") from None
        return answer

    def history(self, name: str, phase: str, seconds: float = 30) -> dict[str, Any]:
        """The Task over REST, once the database knows that it arrived in that phase."""
        listed = f"/v1/namespaces/default/tasks?limit=500&phase={phase}"
        eventually(lambda: [item["name"] for item in self.get(listed)["items"]], lambda names: name in names, seconds)
        return self.get(f"/v1/namespaces/default/tasks/{name}")

    def objects(self) -> ObjectStore:
        environment = self.stack.env()
        return ObjectStore(
            StorageSettings(
                endpoint=environment["TASKFLOW_S3_ENDPOINT"],
                bucket=environment["TASKFLOW_S3_BUCKET"],
                access_key=environment["TASKFLOW_S3_ACCESS_KEY"],
                secret_key=environment["TASKFLOW_S3_SECRET_KEY"],
            )
        )

    def worker_pids(self) -> list[int]:
        """Main processes of all workers, from the node's pods."""
        found = []
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments = status.read_bytes().split(b"\0")
                environment = (status.parent / "environ").read_bytes()
            except OSError:
                continue
            ours = str(self.stack.folder.pods).encode() in environment
            if arguments[1:3] == [b"-m", b"taskflow_worker"] and ours:
                found.append(int(status.parent.name))
        return found


def task(name: str, handler: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "taskflow.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name},
        "spec": {"handler": handler, **spec},
    }


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(c for c in found["status"]["conditions"] if c["type"] == kind)


def has_condition(found: dict[str, Any], kind: str) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


def eventually(read: Callable[[], T], holds: Callable[[T], bool], seconds: float = 30) -> T:
    """What `read` returns once it `holds`; fails with the last value when that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        value = read()
        if holds(value):
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {seconds} s: {value!r}")
        time.sleep(0.1)


def records(path: Path, what: str) -> list[dict[str, Any]]:
    """What a handler's own record says of its starts or ends."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["what"] == what]
