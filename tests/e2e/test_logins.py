"""The logins of workers, kept by a provisioner beside the whole product."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from taskflow_core.errors import Forbidden
from tests.api_server import PODS, POOLS, TASKS
from tests.e2e.conftest import POOL
from tests.e2e.own_stack import own_stack
from tests.e2e.product import Product, condition, eventually, has_condition, records, task
from tests.integration.taskflow_provisioner.site import logs_in, objects

pytestmark = pytest.mark.e2e
GRACE_SECONDS = 45
LABEL = "taskflow.dev/workers"


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with own_stack(
        "provisioner",
        TASKFLOW_PROVISIONER_GRACE_SECONDS=str(GRACE_SECONDS),
        TASKFLOW_PROVISIONER_CHECK_SECONDS="1",
        TASKFLOW_PROVISIONER_RESYNC_SECONDS="5",
    ) as product:
        product.apply(POOL)
        product.kubectl("wait", "tfp/main", "--for=condition=Ready", "--timeout=60s")
        yield product


def values(product: Product, namespace: str = "default") -> dict[str, str]:
    """The environment of the workers of a namespace."""
    found = json.loads(product.kubectl("-n", namespace, "get", "secret", "taskflow-worker", "-o", "json"))
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def pods(product: Product) -> set[str]:
    return {pod["metadata"]["name"] for pod in product.api_server.list(PODS, "taskflow.dev/pool=main")}


def reads(login: dict[str, str]) -> bool:
    """Whether the object store takes the login."""
    try:
        objects(login).list("default/", limit=1)
    except Forbidden:
        return False
    return True


def test_logins_are_rotated_while_tasks_run_and_no_attempt_is_lost(product: Product) -> None:
    record = product.folder / "rotated"
    names = [f"during-{number}" for number in range(60)]
    product.apply(*(task(name, "e2e.recorded_sleep", args=[str(record), 0.5]) for name in names[:40]))
    eventually(lambda: records(record, "start"), lambda begun: len(begun) > 4)
    former, workers = values(product), pods(product)
    product.kubectl("annotate", "secret", "taskflow-worker", "taskflow.dev/rotate=now")
    new = eventually(lambda: values(product), lambda found: found != former)
    assert logs_in(former)
    assert logs_in(new)
    assert reads(former)
    assert reads(new)
    product.apply(*(task(name, "e2e.recorded_sleep", args=[str(record), 0.5]) for name in names[40:]))
    eventually(lambda: pods(product), lambda found: bool(found) and not found & workers, 60)
    eventually(lambda: logs_in(former), lambda valid: not valid, GRACE_SECONDS + 30)
    eventually(lambda: reads(former), lambda allowed: not allowed)
    assert logs_in(new)
    assert reads(new)
    for name in names:
        found = product.finished(name)["status"]
        assert (found["phase"], found["attempt"]) == ("Succeeded", 1), name
    assert len(records(record, "start")) == len(names)
    assert product.run("afterwards", "taskflow.echo", kwargs={"value": 1})["status"]["phase"] == "Succeeded"


def test_redis_without_its_users_stops_the_work_for_seconds(product: Product) -> None:
    product.stack.stop("redis")
    product.stack.start("redis")
    began = time.monotonic()
    eventually(lambda: logs_in(values(product)), bool, 15)
    assert time.monotonic() - began < 15
    assert product.run("after-redis", "taskflow.echo", kwargs={"value": 1})["status"]["phase"] == "Succeeded"


def test_a_pool_without_logins_says_what_to_do_and_local_mode_does_it(product: Product) -> None:
    place = ("-n", "team-a")
    product.kubectl("create", "namespace", "team-a")
    product.kubectl(*place, "apply", "-f", "-", stdin=json.dumps(POOL))
    product.kubectl(*place, "apply", "-f", "-", stdin=json.dumps(task("waits", "taskflow.echo", kwargs={"value": 1})))

    def pool() -> dict[str, Any]:
        return product.api_server.get(POOLS, "main", "team-a")

    def waiting() -> dict[str, Any]:
        return product.api_server.get(TASKS, "waits", "team-a")

    def reason(found: dict[str, Any]) -> str:
        known = [each for each in found.get("status", {}).get("conditions", ()) if each["type"] == "Ready"]
        return known[0]["reason"] if known else ""

    found = eventually(pool, lambda found: reason(found) == "NoWorkerLogin")
    assert condition(found, "Ready")["status"] == "False"
    assert f"{LABEL}=enabled" in condition(found, "Ready")["message"]
    eventually(waiting, lambda found: f"{LABEL}=enabled" in found.get("status", {}).get("message", ""))
    command = (sys.executable, "-m", "taskflow_local", "--state", str(product.stack.folder.root))
    done = subprocess.run([*command, "namespace", "add", "team-a"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    eventually(waiting, lambda found: has_condition(found, "Finished"), 60)
    assert waiting()["status"]["phase"] == "Succeeded"
    login = values(product, "team-a")
    product.kubectl("label", "namespace", "team-a", f"{LABEL}-")
    eventually(lambda: logs_in(login), lambda valid: not valid)
    listed = ("get", "secrets", "-o", "name")
    eventually(lambda: product.kubectl(*place, *listed), lambda found: "taskflow-worker" not in found)
