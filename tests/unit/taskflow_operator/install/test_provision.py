from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from taskflow_core.errors import Conflict, NotFound, Unavailable
from taskflow_core.kube.client import APPLY_PATCH
from taskflow_operator.install.provision import (
    TIMEOUT_SECONDS,
    DevServices,
    Plan,
    apply_pools,
    call_with_retries,
    generated,
    main,
    make_secrets,
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
    password = dev["redis-admin-url"].removeprefix("redis://:").removesuffix("@rd:6379/0")
    own, *users = dev["redis.conf"].splitlines()
    assert own == f"requirepass {password}"
    logins = [urlsplit(dev[key]) for key in ("redis-url", "redis-api-url")]
    assert [login.username for login in logins] == ["taskflow-operator", "taskflow-api"]
    for user, login in zip(users, logins, strict=True):
        digest = hashlib.sha256(str(login.password).encode()).hexdigest()
        assert user.startswith(f"user {login.username} on #{digest} ")
    secret = [values["tokens"]["token-key"], dev["postgres-password"], password, dev["s3-secret-key"]]
    secret += [dev["s3-admin-secret-key"], *(str(login.password) for login in logins)]
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


async def test_pools_are_applied_and_may_be_applied_again() -> None:
    cluster = Cluster()
    assert await apply_pools(cluster, PLAN) == await apply_pools(cluster, PLAN) == ["WorkerPool team/main applied"]
    assert cluster.objects == {"/apis/taskflow.dev/v1alpha1/namespaces/team/workerpools/main": POOL}


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
