"""Payloads that are made to be expensive cost the API server no more than the policy's bounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from bench.templates import HOSTILE, HOSTILE_SCHEMA

from tests.integration.crds.conftest import Cluster
from tests.integration.templates.conftest import apply, refusal, task, template

pytestmark = pytest.mark.integration
WIDTH, PATTERN_CHARS = 128, 2048


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    apply(cluster, template("hostile", {"name": "hostile", "kwargs": HOSTILE_SCHEMA}))
    yield cluster
    cluster.kubectl("delete", "tasktemplates.taskflow.dev", "--all")


@pytest.mark.parametrize(
    ("kwargs", "refused"),
    [
        ({"numbers": [-1] * WIDTH}, True),
        ({"numbers": [-1] * (WIDTH + 1)}, False),
        ({"rows": [{"x": 1}] * WIDTH}, True),
        ({"rows": [{"x": 1}] * (WIDTH + 1)}, False),
        ({"rows": [{"x": -1, "y": 1}] * (WIDTH // 2)}, True),
        ({"rows": [{"x": -1, "y": 1}] * (WIDTH // 2 + 1)}, False),
        ({"nested": "a" * (PATTERN_CHARS - 1) + "!"}, True),
        ({"nested": "a" * PATTERN_CHARS + "!"}, False),
        ({"nested": "!" + "a" * PATTERN_CHARS, "choices": 1}, True),
    ],
)
def test_no_level_is_checked_beyond_its_bound(prepared: Cluster, kwargs: dict[str, Any], refused: bool) -> None:
    assert bool(refusal(prepared, task("hostile", kwargs=kwargs))) == refused


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_payload_is_answered_by_the_checks_and_not_by_an_error(prepared: Cluster, name: str) -> None:
    said = refusal(prepared, task("hostile", kwargs=HOSTILE[name]))
    assert said == "" or "TaskTemplate hostile refuses handler hostile: spec." in said
    # The API server throws longer messages away.
    assert len(said.encode()) < 5 * 1024
