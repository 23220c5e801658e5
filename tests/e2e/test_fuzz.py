"""Manifests by chance: whatever the API server takes gets a condition, and nothing stops the operator.

`FUZZ` is how many (300 for a change; 2,000 each night), `FUZZ_SEED` which ones: the same for each change, others each
night. The seed is printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from bench.tasks import each

from taskflow_core import resources
from taskflow_core.domain import naming
from taskflow_core.errors import TaskflowError
from taskflow_core.kube.client import Hooks, KubeClient, resource_path, tasks_path
from tests.e2e.manifests import Manifests
from tests.e2e.product import Product, task
from tests.e2e.test_operator_production import ask, metric, operator_lines

COUNT = int(os.environ.get("FUZZ", "300"))
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300 + COUNT // 10)]

POOLS = max(COUNT // 30, 10)
SEED = int(os.environ.get("FUZZ_SEED", "1"))
NAMESPACE = "fuzz"
POOLS_PATH = resource_path(f"apis/{naming.API_VERSION}", "workerpools", NAMESPACE)
SERVED = {
    "apiVersion": naming.API_VERSION,
    "kind": "WorkerPool",
    "metadata": {"name": "served", "namespace": NAMESPACE},
    "spec": {"queues": ["default"], "concurrency": 2},
}


@dataclass
class Outcome:
    """What became of the manifests."""

    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of Tasks, as the API server answered, by name."""
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    codes: Counter[int] = field(default_factory=Counter)
    """HTTP status of each creation."""
    unanswered: list[str] = field(default_factory=list)
    """Manifests that were answered with neither 201 nor 4xx."""
    without_condition: list[str] = field(default_factory=list)
    """Names of Tasks and pools that got no condition in time."""
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Tasks in the end; one with a time to live may be gone."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How far it was when, since the first creation."""
    errors: float = 0
    """Errors that the operator counted meanwhile."""
    skipped: list[str] = field(default_factory=list)
    """Lines of the operator's log about a Task that nobody foresaw."""


def crd(plural: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((resources.path("crds") / f"{plural}.taskflow.dev.yaml").read_text())
    return found


def without_pods(body: dict[str, Any]) -> dict[str, Any]:
    """The same pool, without a thousand workers if it should be taken."""
    spec = body.get("spec")
    if isinstance(spec, dict) and spec.get("replicas") not in (-1, 1001, "1", 1.5):
        spec["replicas"] = 0
    return body


def with_few_pods(body: dict[str, Any], number: int) -> dict[str, Any]:
    """The same Task, most of them without a pod of its own: a hundred at once are too many for one machine."""
    spec = body.get("spec")
    if number % 10 and isinstance(spec, dict) and spec.get("isolation") == "Pod":
        spec["isolation"] = "Worker"
    return body


async def create(kube: KubeClient, path: str, body: dict[str, Any], taken: dict[str, Any], outcome: Outcome) -> None:
    # Of each two unknown fields one is refused, the other dropped; told of as warnings they would be too many headers.
    validation = "Strict" if sum(outcome.codes.values()) % 2 else "Ignore"
    try:
        made = await kube.request("POST", path, body, params={"fieldValidation": validation})
    except TaskflowError as error:
        told = str(error)
    else:
        taken[made["metadata"]["name"]] = made
        return
    if "API server" in told:
        outcome.unanswered.append(f"{told}: {json.dumps(body)[:2000]}")


async def unconditioned(kube: KubeClient, path: str, selector: str) -> list[str]:
    return [
        item["metadata"]["name"]
        async for page in kube.list_pages(path, selector)
        for item in page.items
        if not (item.get("status") or {}).get("conditions")
    ]


async def until_none(kube: KubeClient, path: str, selector: str, seconds: float) -> list[str]:
    """Names that have no condition; once there are none, or when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        names = await unconditioned(kube, path, selector)
        if not names or time.monotonic() > deadline:
            return names
        await asyncio.sleep(0.5)


async def fuzz() -> Outcome:
    outcome = Outcome()
    hooks = Hooks(answered=lambda verb, code: outcome.codes.update([code] if verb == "create" else []))
    kube = await KubeClient.connect(hooks=hooks)
    try:
        began = time.monotonic()
        made = Manifests(crd("tasks"), SEED)
        await each(
            (with_few_pods(made.manifest(number), number) for number in range(COUNT)),
            lambda body: create(kube, tasks_path(NAMESPACE), body, outcome.accepted, outcome),
            at_once=16,
        )
        made = Manifests(crd("workerpools"), SEED)
        await each(
            (without_pods(made.manifest(number)) for number in range(POOLS)),
            lambda body: create(kube, POOLS_PATH, body, outcome.pools, outcome),
            at_once=8,
        )
        outcome.seconds["created"] = time.monotonic() - began
        # A Task without a condition has no phase either, and only those are listed.
        outcome.without_condition = await until_none(kube, tasks_path(NAMESPACE), "status.phase=", 60 + COUNT / 50)
        outcome.without_condition += await until_none(kube, POOLS_PATH, "", 30)
        outcome.seconds["all with a condition"] = time.monotonic() - began
        async for page in kube.list_pages(tasks_path(NAMESPACE)):
            outcome.found |= {item["metadata"]["name"]: item for item in page.items}
        return outcome
    finally:
        await kube.close()


async def clean_up() -> None:
    kube = await KubeClient.connect()
    try:
        for path in (tasks_path(NAMESPACE), POOLS_PATH, f"/api/v1/namespaces/{NAMESPACE}"):
            await kube.request("DELETE", path)
    finally:
        await kube.close()


@pytest.fixture(scope="module")
def fuzzed(product: Product) -> Iterator[Outcome]:
    print(f"FUZZ={COUNT} FUZZ_SEED={SEED}")  # noqa: T201 - shown with a failure, to have the same again
    product.stack.add_namespace(NAMESPACE)
    product.apply(SERVED)
    operator, errors = product.stack.pid("operator"), metric(product, "taskflow_errors_total")
    skipped = len(operator_lines(product, "task_skipped"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", product.stack.env()["KUBECONFIG"])
        try:
            outcome = asyncio.run(fuzz())
            print(f"codes {dict(outcome.codes)}, seconds {outcome.seconds}")  # noqa: T201
            assert product.stack.pid("operator") == operator
            outcome.errors = metric(product, "taskflow_errors_total") - errors
            outcome.skipped = operator_lines(product, "task_skipped")[skipped:]
            yield outcome
        finally:
            asyncio.run(clean_up())


def test_the_api_server_takes_or_refuses_every_manifest_and_fails_on_none(fuzzed: Outcome) -> None:
    assert fuzzed.unanswered == []
    assert {code for code in fuzzed.codes if code != 201 and not 400 <= code < 500} == set()
    # Else the manifests have drifted from the schema, and test nothing.
    assert len(fuzzed.accepted) > COUNT * 0.3
    assert sum(fuzzed.codes.values()) - fuzzed.codes[201] > COUNT * 0.15


def test_every_task_and_every_pool_gets_a_condition(fuzzed: Outcome) -> None:
    assert fuzzed.without_condition == []
    missing = fuzzed.accepted.keys() - fuzzed.found.keys()
    assert {name for name in missing if "ttlSecondsAfterFinished" not in fuzzed.accepted[name]["spec"]} == set()
    for found in fuzzed.found.values():
        assert {"Accepted", "Queued"} & {each["type"] for each in found["status"]["conditions"]}
        assert found["status"]["reason"]


def test_the_operator_stumbles_over_none_of_them_and_stays_ready(fuzzed: Outcome, product: Product) -> None:
    assert fuzzed.skipped == []
    assert fuzzed.errors == 0
    assert ask(product, "/readyz") == (200, "ok\n")


def test_a_good_task_beside_them_succeeds(fuzzed: Outcome, product: Product) -> None:
    good = task("good", "taskflow.echo", kwargs={"value": 1})
    good["metadata"]["namespace"] = NAMESPACE
    product.apply(good)
    product.kubectl("wait", "tft/good", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=60s")
    assert product.run("beside-fuzz", "taskflow.echo", kwargs={"value": 2})["status"]["result"] == 2
