from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from taskflow_core.errors import Conflict, NotFound, Unavailable
from taskflow_core.kube.client import APPLY_PATCH
from taskflow_core.settings import RedisSettings, StorageSettings
from taskflow_operator.install.provision import (
    TIMEOUT_SECONDS,
    DevServices,
    Plan,
    call_with_retries,
    generated,
    main,
    make_secrets,
    provide,
    worker_values,
)

POOL = {
    "apiVersion": "taskflow.dev/v1alpha1",
    "kind": "WorkerPool",
    "metadata": {"name": "main", "namespace": "team"},
    "spec": {"queues": ["default"]},
}
PLAN = Plan(
    namespace="system",
    token_secret="tokens",
    dev_services=DevServices(secret="dev", postgres_host="pg", redis_host="rd"),
    worker_namespaces=("team",),
    pools=(POOL,),
)


class Cluster:
    """Objects by path; a PATCH of what another manager keeps is a conflict."""

    def __init__(self, **theirs: str) -> None:
        self.objects: dict[str, Any] = {}
        self.theirs = set(theirs.values())
        self.params: list[Mapping[str, str] | None] = []

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                raise Conflict(f"{path} already exists")
        else:
            assert (method, content_type) == ("PATCH", APPLY_PATCH)
            self.params.append(params)
            if path in self.theirs and params is not None and params["force"] == "false":
                raise Conflict(f"{path}: conflict with kubectl")
        self.objects[path] = body
        return {}


def _counted() -> Any:
    numbers = iter(range(100))
    return lambda: f"random{next(numbers)}"


def test_no_two_generated_values_are_the_same_and_urls_hold_the_passwords_of_their_service() -> None:
    values = generated(PLAN, _counted())
    dev = values["dev"]
    assert values["tokens"].keys() == {"token-key"}
    assert dev["database-url"] == f"postgresql+psycopg://taskflow:{dev['postgres-password']}@pg:5432/taskflow"
    password = dev["redis-url"].removeprefix("redis://:").removesuffix("@rd:6379/0")
    own, reader = dev["redis.conf"].splitlines()
    assert own == f"requirepass {password}"
    login = urlsplit(dev["redis-api-url"])
    assert reader.startswith(f"user taskflow-api on #{hashlib.sha256(str(login.password).encode()).hexdigest()} ")
    assert login.username == "taskflow-api"
    secret = [values["tokens"]["token-key"], dev["postgres-password"], password, dev["s3-secret-key"]]
    assert len(set(secret)) == len(secret)


async def test_a_secret_that_is_there_keeps_its_values() -> None:
    cluster = Cluster()
    await make_secrets(cluster, PLAN)
    before = json.dumps(cluster.objects)
    said = await make_secrets(cluster, PLAN)
    assert json.dumps(cluster.objects) == before
    assert said == ["Secret system/tokens exists already", "Secret system/dev exists already"]


async def test_a_generated_key_is_as_long_as_the_operator_demands() -> None:
    cluster = Cluster()
    await make_secrets(cluster, PLAN)
    key = base64.b64decode(cluster.objects["/api/v1/namespaces/system/secrets/tokens"]["data"]["token-key"])
    assert len(key) >= 32


async def test_workers_get_redis_and_s3_and_no_database() -> None:
    redis = RedisSettings(url=SecretStr("redis://:pw@r/0"))
    storage = StorageSettings(
        endpoint="http://s3", bucket="b", region="r", access_key=SecretStr("id"), secret_key=SecretStr("key")
    )
    cluster = Cluster()
    await provide(cluster, PLAN, worker_values(redis, storage))
    data = cluster.objects["/api/v1/namespaces/team/secrets/taskflow-worker"]["data"]
    assert {name: base64.b64decode(value).decode() for name, value in data.items()} == {
        "TASKFLOW_REDIS_URL": "redis://:pw@r/0",
        "TASKFLOW_S3_ENDPOINT": "http://s3",
        "TASKFLOW_S3_BUCKET": "b",
        "TASKFLOW_S3_REGION": "r",
        "TASKFLOW_S3_ACCESS_KEY": "id",
        "TASKFLOW_S3_SECRET_KEY": "key",
    }
    assert cluster.objects["/apis/taskflow.dev/v1alpha1/namespaces/team/workerpools/main"] == POOL


async def test_a_secret_that_somebody_else_keeps_is_left_to_them() -> None:
    cluster = Cluster(theirs="/api/v1/namespaces/team/secrets/taskflow-worker")
    with pytest.raises(Conflict, match="delete it, or take team out of workerNamespaces"):
        await provide(cluster, PLAN, {"A": "b"})
    assert cluster.objects == {}


async def test_it_waits_for_a_kind_that_is_not_served_yet_but_not_for_ever() -> None:
    now, answers = [0.0], [NotFound("no such kind"), Unavailable("starting"), None]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    async def act() -> list[str]:
        answer = answers.pop(0) if answers else NotFound("no such kind")
        if answer is not None:
            raise answer
        return ["done"]

    assert await call_with_retries(act, clock=lambda: now[0], sleep=sleep) == ["done"]
    assert now[0] == 2
    with pytest.raises(NotFound):
        await call_with_retries(act, clock=lambda: now[0], sleep=sleep)
    assert now[0] == 2 + TIMEOUT_SECONDS


def test_a_file_that_is_no_plan_ends_with_2_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.json"
    assert main(["secrets", str(path)]) == 2
    assert "No such file" in capsys.readouterr().err
    path.write_text("{}")
    assert main(["secrets", str(path)]) == 2
    assert "namespace" in capsys.readouterr().err


def test_lacking_settings_are_named_and_end_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TASKFLOW_REDIS_URL", raising=False)
    path = tmp_path / "plan.json"
    path.write_text('{"namespace": "system"}')
    assert main(["namespaces", str(path)]) == 2
    assert "RedisSettings: url" in capsys.readouterr().err
