"""What a TaskTemplate fills in, on a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.crds.conftest import Cluster
from tests.integration.templates.conftest import apply, task, template

pytestmark = pytest.mark.integration
FILLED = {"region": "eu", "a/b~c": {"deep": [1]}}


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    apply(cluster, yaml.safe_load((Path(__file__).parent / "template.yaml").read_text()))
    yield cluster
    cluster.kubectl("delete", "tasktemplates.taskflow.dev", "--all")


@pytest.mark.parametrize(
    ("spec", "kwargs"),
    [
        ({}, FILLED),
        ({"kwargs": {"region": "us", "x": 1}}, FILLED | {"region": "us", "x": 1}),
        ({"kwargs": {"a/b~c": 1}}, FILLED | {"a/b~c": 1}),
    ],
)
def test_what_is_left_out_is_filled_in(prepared: Cluster, spec: dict[str, Any], kwargs: dict[str, Any]) -> None:
    made = prepared.create(task("reports.filled", **spec))["spec"]
    assert made["kwargs"] == kwargs
    assert (made["attemptTimeoutSeconds"], made["ttlSecondsAfterFinished"]) == (60, 0)


def test_what_may_stand_at_its_position_is_not_filled_in(prepared: Cluster) -> None:
    handler = {"name": "filled.open", "kwargs": {"type": "object"}, "defaults": {"kwargs": {"region": "eu"}}}
    apply(prepared, template("open", handler))
    assert "kwargs" not in prepared.create(task("filled.open", args=["us"]))["spec"]
    assert "kwargs" not in prepared.create(task("filled.open", array={"items": ["us"]}))["spec"]
    assert prepared.create(task("filled.open", args=[]))["spec"]["kwargs"] == {"region": "eu"}


@pytest.mark.parametrize("how", [(), ("--server-side",)])
def test_applying_a_filled_task_again_changes_nothing(prepared: Cluster, how: tuple[str, ...]) -> None:
    manifest = task("reports.filled", kwargs={"x": 1})
    manifest["metadata"] = {"name": f"again{len(how)}", "namespace": "default"}
    prepared.kubectl("apply", *how, "-f", "-", manifest=manifest)
    before = prepared.kubectl("get", "tasks.taskflow.dev", manifest["metadata"]["name"], "-o", "jsonpath={.spec}")
    prepared.kubectl("apply", *how, "-f", "-", manifest=manifest)
    assert prepared.run("diff", *how, "-f", "-", manifest=manifest).returncode == 0
    after = prepared.kubectl("get", "tasks.taskflow.dev", manifest["metadata"]["name"], "-o", "jsonpath={.spec}")
    assert before == after
