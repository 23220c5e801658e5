"""A WorkerPool without `scaling`, handed over to Kubernetes' own autoscaler and to KEDA by the manifests of
docs/scaling.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api_server import AUTOSCALERS
from tests.documents import blocks
from tests.e2e import metrics_adapter
from tests.e2e.own_pool import OwnPool
from tests.e2e.product import Product, eventually, task

PAGE = "docs/scaling.md"
KEDA = Path(__file__).parent / "keda_scaledobjects.yaml"
SLOTS = 4


def manifest(kind: str) -> str:
    """The block of the page that is of this kind, as it stands there."""
    found = [block.text for block in blocks(PAGE) if block.language == "yaml" and f"kind: {kind}\n" in block.text]
    assert len(found) == 1, f"{PAGE}: expected one block with a {kind}, found {len(found)}"
    return found[0]


@pytest.fixture
def adapter(product: Product) -> Iterator[Product]:
    """A cluster whose autoscaler can ask for the operator's metrics."""
    url = f"http://127.0.0.1:{product.stack.port('operator')}/metrics"
    with metrics_adapter.serving(url, product.stack.folder.pki) as port:
        objects = metrics_adapter.registration(port)
        try:
            product.apply(*objects)
            name = objects[-1]["metadata"]["name"]
            product.kubectl("wait", f"apiservice/{name}", "--for=condition=Available", "--timeout=60s")
            yield product
        finally:
            # While it is registered and does not answer, no namespace can be deleted.
            for each in objects:
                product.kubectl("delete", each["kind"], each["metadata"]["name"], "--ignore-not-found")


@pytest.fixture
def reports(product: Product) -> Iterator[OwnPool]:
    """The pool that the manifests of the page name."""
    pool = OwnPool(product, "reports", replicas=1, concurrency=SLOTS)
    yield pool
    product.kubectl("delete", "tft", "--all", "--wait=false")
    product.kubectl("delete", "tfp", pool.name)
    eventually(pool.pods, lambda pods: pods == [])


def hpa(product: Product) -> dict[str, Any]:
    return product.api_server.get(AUTOSCALERS, "reports")


def shown(product: Product) -> tuple[int, str]:
    """How many pods the autoscaler wants, and the demand for each that it saw."""
    status = hpa(product)["status"]
    return status["desiredReplicas"], status["currentMetrics"][0]["external"]["current"]["averageValue"]


def test_an_hpa_scales_a_pool_by_the_demand_that_the_operator_serves(adapter: Product, reports: OwnPool) -> None:
    gate = reports.product.folder / "reports.gate"
    names = [f"reports-{number}" for number in range(2 * SLOTS + 1)]
    arguments = [str(reports.record), str(gate)]
    adapter.kubectl("apply", "-f", "-", stdin=manifest("HorizontalPodAutoscaler"))
    try:
        reports.has(1)
        adapter.apply(*(task(name, "e2e.wait_for_file", queue="reports", args=arguments) for name in names))
        try:
            reports.has(3, 90)
            # All at once: more than one pod holds.
            eventually(reports.executions, lambda found: sum(found.values()) == len(names), 90)
            # 9 slots of demand for each of 3 pods; its status is as of its last look, which may have been at the one
            # pod before.
            eventually(lambda: shown(adapter), lambda found: found == (3, "3"))
        finally:
            gate.touch()
        reports.all_ran_once(names)
        reports.has(1, 90)
        written = json.loads(adapter.kubectl("get", "tfp", "reports", "-o", "json", "--show-managed-fields"))
        assert written["spec"]["replicas"] == 1
        managers = {
            field["manager"] for field in written["metadata"]["managedFields"] if field.get("subresource") == "scale"
        }
        assert {manager.startswith("kube-controller-manager") for manager in managers} == {True}
    finally:
        adapter.kubectl("delete", "hpa", "reports")


def test_an_hpa_on_a_pool_that_the_operator_scales_says_that_it_does_nothing(adapter: Product) -> None:
    pool = OwnPool(adapter, "reports", scaling={"minReplicas": 1, "maxReplicas": 1})
    try:
        pool.has(1)
        adapter.kubectl("apply", "-f", "-", stdin=manifest("HorizontalPodAutoscaler"))
        found = eventually(
            lambda: [each for each in hpa(adapter)["status"].get("conditions", ()) if each["type"] == "AbleToScale"],
            lambda able: [each["reason"] for each in able] == ["FailedGetScale"],
            60,
        )
        assert 'the spec replicas field ".spec.replicas" does not exist' in found[0]["message"]
        assert "replicas" not in json.loads(adapter.kubectl("get", "tfp", "reports", "-o", "json"))["spec"]
        refused = adapter.kubectl("scale", "tfp/reports", "--replicas=2", check=False)
        assert "replicas has one owner: remove spec.replicas to let spec.scaling decide" in refused
    finally:
        adapter.kubectl("delete", "hpa", "reports", "--ignore-not-found")
        adapter.kubectl("delete", "tfp", "reports")
        eventually(pool.pods, lambda pods: pods == [])


def test_the_scaled_object_of_the_page_is_one_that_keda_takes(product: Product, reports: OwnPool) -> None:
    product.kubectl("apply", "--server-side", "-f", str(KEDA))
    name = "scaledobjects.keda.sh"
    try:
        product.kubectl("wait", f"crd/{name}", "--for=condition=Established", "--timeout=30s")
        text = manifest("ScaledObject")
        product.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=text)
        made = json.loads(product.kubectl("get", name, "reports", "-o", "json"))
        target = yaml.safe_load(text)["spec"]["scaleTargetRef"]
        assert made["spec"]["scaleTargetRef"] == target
        # What KEDA asks for first: the target's number and the selector of its pods.
        scale = json.loads(
            product.kubectl(
                "get", "--raw", f"/apis/{target['apiVersion']}/namespaces/default/workerpools/{target['name']}/scale"
            )
        )
        assert (scale["spec"]["replicas"], bool(scale["status"]["selector"])) == (1, True)
        wrong = text.replace("pollingInterval", "pollInterval")
        refused = product.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=wrong, check=False)
        assert "pollInterval" in refused
    finally:
        product.kubectl("delete", "crd", name)
