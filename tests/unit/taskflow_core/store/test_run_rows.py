"""Which Tasks are noted as having run, and as what."""

from __future__ import annotations

from typing import Any

import pytest

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.run_once import digest
from taskflow_core.domain.task import Task, TaskSpec
from taskflow_core.store.folding import fold, mirror
from tests.unit.taskflow_core.store.builders import UID, snapshot

SPEC: dict[str, Any] = {"handler": "reports.summarise", "kwargs": {"n": 1}, "rerun": "UnlessSucceeded"}
REPORT: dict[str, Any] = {"name": "report", "spec": SPEC}
START, END = "2026-09-21T12:00:00Z", "2026-09-21T12:00:09Z"
WELL: dict[str, Any] = {
    "phase": "Succeeded",
    "reason": "Succeeded",
    "startTime": START,
    "completionTime": END,
    "result": {"rows": 3},
}
BADLY: dict[str, Any] = {"phase": "Failed", "reason": "HandlerError", "startTime": START, "completionTime": END}


def runs(*told: dict[str, Any], kind: EventKind = EventKind.SETTLED) -> list[tuple[str, str]]:
    """Phase and uid of what is noted, after the events of so many Tasks of one name."""
    events = [
        snapshot(kind, number, uid=f"{UID[:-1]}{number}", **(REPORT | fields)) for number, fields in enumerate(told)
    ]
    return [(run["phase"], run["uid"][-1]) for run in fold(events).runs]


def test_an_end_is_noted_with_its_result_under_its_name_and_digest() -> None:
    (run,) = fold([snapshot(EventKind.SETTLED, 1, name="report", spec=SPEC, **WELL)]).runs
    assert (run["namespace"], run["name"], run["digest"]) == (
        "team-a",
        "report",
        digest(TaskSpec.model_validate(SPEC)),
    )
    assert (run["uid"], run["phase"], run["result"], run["outputs"]) == (UID, "Succeeded", {"rows": 3}, [])
    assert run["finished_at"].isoformat() == "2026-09-21T12:00:09+00:00"


@pytest.mark.parametrize(
    "told",
    [
        WELL | {"spec": {**SPEC, "rerun": "Always"}},
        WELL | {"spec": {"handler": "h"}},
        WELL | {"reason": "AlreadyRan", "startTime": None},
        {"phase": "Pending", "reason": "BackingOff", "startTime": START},
        {"phase": "Failed", "reason": "QueueTimeout", "completionTime": END},
        {"phase": "Cancelled", "reason": "Cancelled", "completionTime": END},
    ],
    ids=["always", "no rerun", "ran before", "a retry", "never started", "cancelled before it started"],
)
def test_what_did_nothing_or_goes_on_is_not_noted(told: dict[str, Any]) -> None:
    assert runs(told) == []


def test_what_started_is_noted_although_nobody_knows_when() -> None:
    assert runs({"phase": "Failed", "reason": "WorkerLost", "completionTime": END, "attempts": 1}) == [("Failed", "0")]


def test_what_was_deleted_while_it_ran_is_cancelled() -> None:
    running = {"phase": "Running", "reason": "Started", "startTime": START}
    assert runs(running, kind=EventKind.DELETED) == [("Cancelled", "0")]
    assert runs({}, kind=EventKind.DELETED) == []


def test_a_success_is_worth_more_than_a_later_failure_and_else_the_latest_counts() -> None:
    later = BADLY | {"completionTime": "2026-09-22T12:00:00Z"}
    assert runs(BADLY, WELL, later) == [("Succeeded", "1")]
    assert runs(later, BADLY) == [("Failed", "0")]


def test_a_task_that_is_mirrored_is_noted_like_one_that_was_told() -> None:
    body = {
        "metadata": {"uid": UID, "namespace": "team-a", "name": "report", "creationTimestamp": "2026-09-20T12:00:00Z"},
        "spec": SPEC,
        "status": WELL,
    }
    assert (
        mirror([Task.from_object(body)]).runs
        == fold([snapshot(EventKind.SETTLED, 1, name="report", spec=SPEC, **WELL)]).runs
    )
