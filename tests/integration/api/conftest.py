import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import urllib3
from pydantic import SecretStr

from taskflow_core.domain.task import Task
from taskflow_core.kube.client import KubeClient, resource_path, tasks_path
from taskflow_core.ledger.cache_versions import CacheVersions
from taskflow_core.ledger.connect import connect_async
from taskflow_core.settings import DatabaseSettings, RedisSettings
from taskflow_core.store import repository, schedules
from taskflow_core.store.engine import create_engine, transaction
from taskflow_core.store.schedules import RunRow
from taskflow_local.stack import Stack
from tests.integration.api.issuer import Issuer

Result = TypeVar("Result")
NAMESPACE = "team-a"
_RBAC = "apis/rbac.authorization.k8s.io/v1"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Installation:
    """A real API process on real servers, and the actions of its users and of the operator."""

    def __init__(self, stack: Stack, issuer: Issuer, metrics_port: int = 0) -> None:
        self.stack = stack
        self.metrics_port = metrics_port
        self.issuer = issuer
        self.http = urllib3.PoolManager(retries=False, timeout=20)
        self.tokens: dict[str, str] = {}

    def call(self, method: str, path: str, body: Any = None, *, account: str = "allowed", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = sent | ({"Authorization": f"Bearer {self.tokens[account]}"} if account else {})
        url = f"http://127.0.0.1:{self.stack.port('api')}{path}"
        answer = self.http.request(method, url, headers=headers, json=body, redirect=False)
        return Answer(answer.status, answer.headers, answer.data)

    def command(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m taskflow_api ...` as the administrator, with the database and a kubeconfig."""
        return subprocess.run(
            [sys.executable, "-m", "taskflow_api", *arguments],
            env=os.environ | self.stack.env() | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def kube(self, action: Callable[[KubeClient], Awaitable[Result]]) -> Result:
        """Run an action as the administrator."""

        async def connected() -> Result:
            client = await KubeClient.connect()
            try:
                return await action(client)
            finally:
                await client.close()

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", self.stack.env()["KUBECONFIG"])
            return asyncio.run(connected())

    def mirror(self, namespace: str = NAMESPACE) -> None:
        """Write all Tasks to the history, as the operator does."""

        async def read(client: KubeClient) -> list[Task]:
            found = await client.request("GET", tasks_path(namespace))
            return [Task.from_object(item) for item in found["items"]]

        tasks = self.kube(read)

        async def write() -> None:
            env = self.stack.env()
            settings = DatabaseSettings(url=SecretStr(env["TASKFLOW_DATABASE_URL"]))
            engine = create_engine(settings, application_name="test")
            async with connect_async(RedisSettings(url=SecretStr(env["TASKFLOW_REDIS_URL"]))) as client:
                versions = CacheVersions(client)
                async with transaction(engine) as connection:
                    assert await repository.upsert_tasks(connection, tasks) == len(tasks)
                    await versions.changing([namespace])
                await versions.changed([namespace])
            await engine.dispose()

        asyncio.run(write())

    def record_run(self, run: RunRow) -> None:
        """Write a run of a schedule to the history, as the operator does."""

        async def write() -> None:
            settings = DatabaseSettings(url=SecretStr(self.stack.env()["TASKFLOW_DATABASE_URL"]))
            engine = create_engine(settings, application_name="test")
            async with transaction(engine) as connection:
                await schedules.record_runs(connection, [run])
            await engine.dispose()

        asyncio.run(write())

    def add_account(
        self,
        name: str,
        verbs: list[str],
        on_pools: tuple[str, ...] = (),
        on_schedules: tuple[str, ...] = (),
        *,
        namespace: str = NAMESPACE,
    ) -> None:
        """Create a ServiceAccount with these permissions on Tasks, pools and schedules of the namespace, and a token
        for it.
        """

        async def add(client: KubeClient) -> str:
            accounts = resource_path("api/v1", "serviceaccounts", namespace)
            await client.request("POST", accounts, {"metadata": {"name": name}})
            token = await client.request("POST", f"{accounts}/{name}/token", {"spec": {"expirationSeconds": 3600}})
            return str(token["status"]["token"])

        self.tokens[name] = self.kube(add)
        rules = [
            {"apiGroups": ["taskflow.dev"], "resources": [resource], "verbs": list(allowed)}
            for resource, allowed in (
                ("tasks", verbs),
                ("workerpools", on_pools),
                ("taskschedules", on_schedules),
            )
            if allowed
        ]
        if rules:
            self.grant(
                name, {"kind": "ServiceAccount", "name": name, "namespace": namespace}, *rules, namespace=namespace
            )

    def grant(self, role: str, subject: dict[str, str], *rules: dict[str, Any], namespace: str = NAMESPACE) -> None:
        """A Role with these rules in the namespace, bound to the subject."""

        async def add(client: KubeClient) -> None:
            await client.request(
                "POST", resource_path(_RBAC, "roles", namespace), {"metadata": {"name": role}, "rules": rules}
            )
            binding = {
                "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
                "subjects": [subject],
            }
            await client.request("POST", resource_path(_RBAC, "rolebindings", namespace), binding)

        self.kube(add)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="package")
def installation() -> Iterator[Installation]:
    with made_installation() as made:
        yield made


@contextmanager
def made_installation() -> Iterator[Installation]:
    """All servers and the API, with three accounts in a namespace: full access to Tasks, read access, and no access."""
    # Not tmp_path: if the tests run as root, the user of PostgreSQL cannot read it.
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        Path(folder).chmod(0o711)
        with Issuer() as issuer:
            environ = os.environ | {
                "TASKFLOW_OIDC_ISSUER": issuer.url,
                "TASKFLOW_OIDC_AUDIENCE": "taskflow",
                "TASKFLOW_OIDC_USERNAME_PREFIX": "oidc:",
                "TASKFLOW_OIDC_GROUPS_CLAIM": "groups",
                "TASKFLOW_OIDC_GROUPS_PREFIX": "oidc:",
                "TASKFLOW_REGISTER_ENABLED": "true",
                "TASKFLOW_REGISTER_SIGNING_KEY": secrets.token_hex(32),
                # Endpoints can be created, but no notifier runs.
                "TASKFLOW_WEBHOOKS_ENABLED": "true",
                # Some tests send many requests.
                "TASKFLOW_LIMITS_CALLER_PER_MINUTE": "1000000",
                "TASKFLOW_API_METRICS_PORT": str(_free_port()),
            }
            stack = Stack(
                Path(folder) / "state", ("etcd", "kube-apiserver", "redis", "postgres", "minio", "api"), environ
            )
            try:
                stack.up()
                stack.apply_crds()
                stack.add_namespace(NAMESPACE)
                made = Installation(stack, issuer, int(environ["TASKFLOW_API_METRICS_PORT"]))
                everything = ["create", "get", "list", "watch", "patch", "delete"]
                made.add_account("allowed", everything, ("get", "list", "patch"))
                made.add_account("reader", ["get", "list"])
                made.add_account("stranger", [])
                yield made
            finally:
                stack.down()
