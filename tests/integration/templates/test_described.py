"""What `taskflow-worker describe` prints is taken by the API server, which then takes and refuses what handlers do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import yaml
from bench.templates import dry_run

from taskflow_core.errors import Invalid
from taskflow_core.kube.client import KubeClient
from taskflow_worker.describe.template import describe, text
from tests.integration.crds.conftest import Cluster
from tests.integration.templates.conftest import apply
from tests.unit.taskflow_worker.describe.handlers_of_all_kinds import LATER, REGISTRY, RIGHT, WRONG

pytestmark = pytest.mark.integration


async def _verdicts(asked: list[tuple[str, dict[str, Any]]]) -> list[bool]:
    kube = await KubeClient.connect(connections=2)
    found = []
    try:
        for handler, kwargs in asked:
            try:
                await dry_run(kube, "default", handler, kwargs)
            except Invalid:
                found.append(False)
            else:
                found.append(True)
    finally:
        await kube.close()
    return found


def test_a_described_handler_is_checked_by_the_api_server(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.stack.kubeconfig))
    manifest = yaml.safe_load(text(describe(REGISTRY), "kinds"))
    manifest["metadata"]["namespace"] = "default"
    apply(cluster, manifest)
    right = [(name, kwargs) for name, each in RIGHT.items() for kwargs in each]
    asked = [*right, *LATER, *WRONG]
    found = asyncio.run(_verdicts(asked))
    expected = [True] * (len(right) + len(LATER)) + [False] * len(WRONG)
    wrong = [case for case, one, other in zip(asked, found, expected, strict=True) if one != other]
    assert wrong == []
    cluster.kubectl("delete", "tasktemplates.taskflow.dev", "--all")
