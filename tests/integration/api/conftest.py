import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import urllib3
from pydantic import SecretStr

from taskflow_core.domain.task import Task
from taskflow_core.kube.client import KubeClient, resource_path, tasks_path
from taskflow_core.settings import DatabaseSettings
from taskflow_core.store import repository
from taskflow_core.store.engine import create_engine, transaction
from taskflow_local.stack import Stack

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
    """A real API process in front of real servers, and what its users and the operator do around it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.http = urllib3.PoolManager(retries=False, timeout=20)
        self.tokens: dict[str, str] = {}

    def call(self, method: str, path: str, body: Any = None, *, account: str = "allowed", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = sent | ({"Authorization": f"Bearer {self.tokens[account]}"} if account else {})
        url = f"http://127.0.0.1:{self.stack.port('api')}{path}"
        answer = self.http.request(method, url, headers=headers, json=body, redirect=False)
        return Answer(answer.status, answer.headers, answer.data)

    def kube(self, action: Callable[[KubeClient], Awaitable[Result]]) -> Result:
        """As the administrator."""

        async def connected() -> Result:
            client = await KubeClient.connect()
            try:
                return await action(client)
            finally:
                await client.close()

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", self.stack.env()["KUBECONFIG"])
            return asyncio.run(connected())

    def mirror(self) -> None:
        """Bring all Tasks into the history, as the operator does."""

        async def read(client: KubeClient) -> list[Task]:
            found = await client.request("GET", tasks_path(NAMESPACE))
            return [Task.from_object(item) for item in found["items"]]

        tasks = self.kube(read)

        async def write() -> None:
            settings = DatabaseSettings(url=SecretStr(self.stack.env()["TASKFLOW_DATABASE_URL"]))
            engine = create_engine(settings, application_name="test")
            async with transaction(engine) as connection:
                assert await repository.upsert_tasks(connection, tasks) == len(tasks)
            await engine.dispose()

        asyncio.run(write())

    def add_account(self, name: str, verbs: list[str], on_pools: tuple[str, ...] = ()) -> None:
        """A ServiceAccount with these rights on Tasks and pools of the namespace, and a token for it."""

        async def add(client: KubeClient) -> str:
            accounts = resource_path("api/v1", "serviceaccounts", NAMESPACE)
            await client.request("POST", accounts, {"metadata": {"name": name}})
            if verbs:
                rules = [
                    {"apiGroups": ["taskflow.dev"], "resources": [resource], "verbs": list(allowed)}
                    for resource, allowed in (("tasks", verbs), ("workerpools", on_pools))
                    if allowed
                ]
                role = {"metadata": {"name": name}, "rules": rules}
                await client.request("POST", resource_path(_RBAC, "roles", NAMESPACE), role)
                binding = {
                    "metadata": {"name": name},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                    "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
                }
                await client.request("POST", resource_path(_RBAC, "rolebindings", NAMESPACE), binding)
            token = await client.request("POST", f"{accounts}/{name}/token", {"spec": {"expirationSeconds": 3600}})
            return str(token["status"]["token"])

        self.tokens[name] = self.kube(add)


@pytest.fixture(scope="package")
def installation() -> Iterator[Installation]:
    # Not pytest's own folder, which PostgreSQL's user may not pass when the tests run as root.
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        Path(folder).chmod(0o711)
        stack = Stack(Path(folder) / "state", ("etcd", "kube-apiserver", "postgres", "minio", "api"))
        try:
            stack.up()
            stack.apply_crds()
            stack.add_namespace(NAMESPACE)
            made = Installation(stack)
            made.add_account("allowed", ["create", "get", "list", "watch", "patch", "delete"], ("get", "list", "patch"))
            made.add_account("reader", ["get", "list"])
            made.add_account("stranger", [])
            yield made
        finally:
            stack.down()
