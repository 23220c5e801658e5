"""Two tenants on one stack: one is hostile and has the logins of its own workers, the other notices nothing."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psycopg
import redis
from minio import Minio

from taskflow_core.domain import naming
from taskflow_core.domain.naming import NamespaceKeys, keys_of
from taskflow_local.stack import Stack
from tests.api_server import POOLS, TASKS, ApiServer
from tests.e2e.product import Product, eventually, has_condition

VICTIM, EVIL = "victim", "evil"
SECRET_KEY, SECRET = f"{VICTIM}/secret.txt", b"what only the victim may read"
SLOW_SECONDS = 10
"""A Task of the victim that takes no longer has noticed nothing, on a machine where others work too."""


@dataclass
class Site:
    """The stack, and what each tenant can do there."""

    product: Product
    _count: int = 0
    pids: dict[str, int | None] = field(default_factory=dict)

    @property
    def stack(self) -> Stack:
        return self.product.stack

    @cached_property
    def api_server(self) -> ApiServer:
        """As the administrator, to look."""
        return ApiServer(self.stack.kubeconfig)

    @cached_property
    def login(self) -> dict[str, str]:
        """What a handler of the hostile tenant finds in its environment."""
        return self.stack.worker_env(EVIL)

    @cached_property
    def hostile(self) -> Any:
        """Redis, as a handler of the hostile tenant; answers are bytes."""
        return redis.Redis.from_url(self.login["TASKFLOW_REDIS_URL"], socket_timeout=30)

    @cached_property
    def admin(self) -> Any:
        """Redis, as its administrator, to look; answers are bytes."""
        return redis.Redis.from_url(self.stack.env()["TASKFLOW_REDIS_URL"], socket_timeout=30)

    @cached_property
    def objects(self) -> Minio:
        """S3, as a handler of the hostile tenant."""
        return _client(self.login)

    @cached_property
    def all_objects(self) -> Minio:
        """S3, as its administrator."""
        return _client(self.stack.env())

    @cached_property
    def database(self) -> psycopg.Connection[Any]:
        """The history, as its owner."""
        url = self.stack.env()["TASKFLOW_DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
        return psycopg.connect(url, autocommit=True)

    def keys(self, namespace: str = EVIL) -> NamespaceKeys:
        """Redis keys of a tenant."""
        return keys_of(namespace)

    def create(self, namespace: str, handler: str, **spec: Any) -> dict[str, Any]:
        """A new Task, with its uid."""
        self._count += 1
        name = f"{handler.rpartition('.')[2].replace('_', '-')}-{self._count}"
        body = {
            "apiVersion": naming.API_VERSION,
            "kind": "Task",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"handler": handler, **spec},
        }
        self.product.apply(body)
        return self.task(namespace, name)

    def task(self, namespace: str, name: str) -> dict[str, Any]:
        return self.api_server.get(TASKS, name, namespace)

    def pool(self, namespace: str) -> dict[str, Any]:
        """Status of a tenant's pool."""
        return dict(self.api_server.get(POOLS, "main", namespace).get("status") or {})

    def finished(self, task: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
        """The Task, once it finished."""
        meta = task["metadata"]
        return eventually(
            lambda: self.task(meta["namespace"], meta["name"]), lambda found: has_condition(found, "Finished"), seconds
        )

    def running(self, task: dict[str, Any], seconds: float = 60) -> dict[str, Any]:
        """The Task, once it runs."""
        meta = task["metadata"]
        return eventually(
            lambda: self.task(meta["namespace"], meta["name"]),
            lambda found: found.get("status", {}).get("phase") == "Running",
            seconds,
        )

    def say(self, kind: str, uid: str, *, stream: str | None = None, **fields: Any) -> bytes:
        """Write an event as the hostile tenant, into its own stream by default."""
        values = {"k": kind, "uid": uid, "att": "1", "ts": str(int(time.time() * 1000)), "p": "{}", **fields}
        return bytes(self.hostile.xadd(stream or self.keys().events, values))

    def rest(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        """A request to the REST API; answers status and body."""
        environment = self.stack.env()
        request = urllib.request.Request(
            environment["TASKFLOW_API_URL"] + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {token or environment['TASKFLOW_API_TOKEN']}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric of the operator over the series that have these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.stack.port('operator')}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith((name + "{", name + " ")) and all(each in line for each in wanted)
        )

    def note_processes(self) -> None:
        """Remember which processes run before an attack."""
        self.pids = {name: self.stack.pid(name) for name in ("operator", "api")}

    def assert_unharmed(self) -> None:
        """The victim's Tasks run as before, its rows and objects are as they were, and no process ended."""
        began = time.monotonic()
        done = self.finished(self.create(VICTIM, "taskflow.echo", args=["still here"]), SLOW_SECONDS)
        took = time.monotonic() - began
        assert done["status"]["phase"] == "Succeeded", done["status"]
        assert done["status"]["attempts"] == 1
        assert took < SLOW_SECONDS
        held = self.all_objects.get_object("taskflow", SECRET_KEY)
        try:
            assert held.read() == SECRET
        finally:
            held.close()
            held.release_conn()
        assert {name: self.stack.pid(name) for name in self.pids} == self.pids, "a process was started again"

    def close(self) -> None:
        for name in ("hostile", "admin", "database", "api_server"):
            if name in self.__dict__:
                self.__dict__[name].close()


def _client(environment: dict[str, str]) -> Minio:
    return Minio(
        environment["TASKFLOW_S3_ENDPOINT"].removeprefix("http://"),
        access_key=environment["TASKFLOW_S3_ACCESS_KEY"],
        secret_key=environment["TASKFLOW_S3_SECRET_KEY"],
        region="us-east-1",
        secure=False,
    )
