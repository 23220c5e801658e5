"""The specification of a Task inside another CRD, on a real API server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.crds.conftest import Cluster

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
import gen_crds

pytestmark = pytest.mark.integration
CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: holders.test.taskflow.dev}
spec:
  group: test.taskflow.dev
  scope: Namespaced
  names: {kind: Holder, plural: holders, singular: holder}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            taskTemplate:
              # BEGIN Task spec: written by `make gen`
              # END Task spec
"""


def holder(name: str, **spec: Any) -> dict[str, Any]:
    template = {"handler": "reports.summarise", **spec}
    return {
        "apiVersion": "test.taskflow.dev/v1",
        "kind": "Holder",
        "metadata": {"name": name},
        "taskTemplate": template,
    }


@pytest.fixture(scope="module")
def holders(cluster: Cluster) -> Iterator[Cluster]:
    cluster.kubectl("apply", "--server-side", "-f", "-", manifest=yaml.safe_load(gen_crds.embed(CRD)))
    cluster.kubectl("wait", "crd/holders.test.taskflow.dev", "--for=condition=Established", "--timeout=30s")
    yield cluster
    cluster.kubectl("delete", "crd/holders.test.taskflow.dev")


def test_embedding_again_changes_nothing() -> None:
    once = gen_crds.embed(CRD)
    assert "handler" in once
    assert gen_crds.embed(once) == once


def test_it_has_the_defaults_and_the_rules_of_a_task(holders: Cluster) -> None:
    made = holders.create(holder("whole", kwargs={"day": 1}, retryPolicy={"maxAttempts": 2}))
    assert (made["taskTemplate"]["queue"], made["taskTemplate"]["retryPolicy"]["backoffFactor"]) == ("default", 2)
    refused = holders.run(
        "create", "-f", "-", manifest=holder("bad", retryPolicy={"backoffSeconds": 9, "maxBackoffSeconds": 1})
    )
    assert refused.returncode != 0
    assert "maxBackoffSeconds" in refused.stderr


def test_what_a_task_fixes_may_change_here(holders: Cluster) -> None:
    holders.create(holder("edited"))
    holders.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", manifest=holder("edited", queue="other"))
    assert "other" in holders.kubectl("get", "holders/edited", "-o", "jsonpath={.taskTemplate.queue}")


@pytest.mark.parametrize("field", ["cancel", "suspend", "notBefore"])
def test_what_the_creator_decides_is_no_field(holders: Cluster, field: str) -> None:
    value = "2030-01-01T00:00:00Z" if field == "notBefore" else True
    done = holders.run(
        "create", "--validate=strict", "-f", "-", manifest=holder(f"no-{field.lower()}", **{field: value})
    )
    assert f'unknown field "taskTemplate.{field}"' in done.stderr
