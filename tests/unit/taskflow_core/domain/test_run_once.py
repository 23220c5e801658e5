"""What names the work of a Task, and whether a former run of it counts."""

from __future__ import annotations

from typing import Any

import pytest

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.run_once import PastRun, digest
from taskflow_core.domain.task import Rerun, TaskSpec
from tests.builders import NOW, UID

WORK: dict[str, Any] = {"handler": "reports.build", "kwargs": {"year": 2026, "region": "eu"}}


def of(**fields: Any) -> str:
    return digest(TaskSpec.model_validate(WORK | fields))


def test_the_digest_is_the_same_in_every_version() -> None:
    # Stored with each run: another value makes all of them run again, so it takes another version, `v2:`.
    assert of() == "v1:e0973b09257c4e7df102bc829c3c8896ae93cb9fb4666923c38f9f087ff7f364"


def test_fields_that_are_equal_to_their_defaults_change_nothing() -> None:
    whole = TaskSpec.model_validate(WORK).model_dump(mode="json", by_alias=True)
    assert digest(TaskSpec.model_validate(whole)) == of()
    assert of(isolation="Worker", args=[], inputs=[]) == of()
    named = {"outputs": [{"name": "a"}]}
    assert of(outputs=[{"name": "a", "contentType": "application/octet-stream"}]) == of(**named)


def test_the_order_of_keys_changes_nothing() -> None:
    assert of(kwargs={"region": "eu", "year": 2026}) == of()


@pytest.mark.parametrize(
    "fields",
    [
        {"queue": "other"},
        {"priority": 9},
        {"retryPolicy": {"maxAttempts": 1}},
        {"attemptTimeoutSeconds": 5},
        {"ttlSecondsAfterFinished": 60},
        {"notBefore": "2030-01-01T00:00:00Z"},
        {"dependsOn": [{"name": "a"}]},
        {"suspend": True},
        {"rerun": "Never"},
    ],
    ids=str,
)
def test_how_and_when_it_is_done_is_no_other_work(fields: dict[str, Any]) -> None:
    assert of(**fields) == of()


@pytest.mark.parametrize(
    "fields",
    [
        {"handler": "reports.other"},
        {"args": [1]},
        {"kwargs": {"year": 2027, "region": "eu"}},
        {"kwargs": {"year": "2026", "region": "eu"}},
        {"inputs": [{"name": "a", "key": "k"}]},
        {"outputs": [{"name": "a"}]},
        {"isolation": "Pod"},
        {"array": {"count": 3}},
    ],
    ids=str,
)
def test_other_work_has_another_digest(fields: dict[str, Any]) -> None:
    assert of(**fields) != of()


@pytest.mark.parametrize(
    ("rerun", "phase", "prevents"),
    [
        (Rerun.ALWAYS, Phase.SUCCEEDED, False),
        (Rerun.UNLESS_SUCCEEDED, Phase.SUCCEEDED, True),
        (Rerun.UNLESS_SUCCEEDED, Phase.FAILED, False),
        (Rerun.UNLESS_SUCCEEDED, Phase.CANCELLED, False),
        (Rerun.NEVER, Phase.SUCCEEDED, True),
        (Rerun.NEVER, Phase.FAILED, True),
        (Rerun.NEVER, Phase.CANCELLED, True),
    ],
)
def test_which_former_run_counts(rerun: Rerun, phase: Phase, prevents: bool) -> None:
    assert PastRun(UID, phase, NOW).prevents(rerun) is prevents
