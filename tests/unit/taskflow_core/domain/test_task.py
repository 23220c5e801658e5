from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskflow_core.domain.phases import OPEN_SELECTOR, Phase, Reason
from taskflow_core.domain.resource import Condition
from taskflow_core.domain.task import LastError, StoredOutput, Task, TaskSpec, TaskStatus
from tests.builders import NOW, make_object, make_task

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def full_status() -> TaskStatus:
    return TaskStatus(
        observed_generation=2,
        phase=Phase.FAILED,
        reason=Reason.HANDLER_ERROR,
        message="attempt 3: no",
        attempt=3,
        handbacks=1,
        worker="pod:1",
        next_attempt_time=NOW,
        start_time=NOW,
        completion_time=NOW,
        duration="3.0s",
        last_error=LastError(attempt=3, reason=Reason.HANDLER_ERROR, type="ValueError", message="no"),
        result={"rows": None},
        outputs=(StoredOutput(name="o", key="n/u/3/o", size_bytes=1, sha256="00", content_type="text/plain"),),
        conditions=(Condition(type="Failed", status="True", reason="HandlerError", last_transition_time=NOW),),
    )


def test_a_task_reads_back_as_it_was_written() -> None:
    task = make_task(
        args=[1, None, "x"],
        kwargs={"deep": {"list": [None]}},
        priority=9,
        inputs=[{"name": "a", "key": "b/c"}],
        outputs=[{"name": "o"}],
        retryPolicy={"maxAttempts": 7},
    ).model_copy(update={"status": full_status()})
    assert Task.from_object(make_object(task)) == task


@given(args=st.lists(json_values, max_size=4), kwargs=st.dictionaries(st.text(max_size=5), json_values, max_size=3))
def test_arguments_of_any_json_survive(args: list[Any], kwargs: dict[str, Any]) -> None:
    task = make_task(args=args, kwargs=kwargs)
    assert Task.from_object(make_object(task)) == task


@given(result=json_values.filter(lambda value: value is not None))
def test_a_result_of_any_json_survives_with_its_nulls(result: Any) -> None:
    written = TaskStatus(phase=Phase.SUCCEEDED, result=result).to_object()
    assert written["result"] == result
    assert TaskStatus.model_validate(written).result == result


def test_the_wire_is_camel_case_with_whole_seconds_and_without_what_is_unset() -> None:
    written = TaskStatus(phase=Phase.RUNNING, start_time=NOW + timedelta(milliseconds=900)).to_object()
    assert written["startTime"] == "2026-03-01T12:00:00Z"
    assert "completionTime" not in written
    assert "worker" not in written
    assert {key for key in written if "_" in key} == set()


def test_a_time_in_another_zone_is_kept_in_utc() -> None:
    there = datetime(2026, 3, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    assert TaskStatus(start_time=there).start_time == NOW
    assert TaskStatus(start_time=there).start_time.tzinfo is UTC  # type: ignore[union-attr]


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    body = make_object(make_task(phase=Phase.QUEUED))
    body["spec"]["ofANewerVersion"] = "2026-03-01T12:00:00Z"
    body["status"]["alsoNewer"] = 5
    assert Task.from_object(body).spec.handler == "reports.summarise"


def test_a_task_without_status_is_at_its_first_attempt() -> None:
    body = make_object(make_task())
    assert "status" not in body
    task = Task.from_object(body)
    assert (task.status.attempt, task.status.phase, task.finished) == (1, None, False)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"handler": None}, "handler"),
        ({}, "handler"),
        ({"handler": "h", "priority": 10}, "priority"),
        ({"handler": "h", "retryPolicy": 3}, "retryPolicy"),
        ({"handler": "h", "inputs": [{"name": "a"}]}, "inputs.0.key"),
        ({"handler": "h", "dependsOn": [{"name": "../workerpools/main"}]}, "dependsOn.0.name"),
        ({"handler": "h", "dependsOn": [{"name": ".."}]}, "dependsOn.0.name"),
        ({"handler": "h", "dependsOn": [{"name": "a\n"}]}, "dependsOn.0.name"),
        # The API server's format date-time admits these.
        ({"handler": "h", "notBefore": "0000-01-01T00:00:00Z"}, "notBefore"),
        ({"handler": "h", "notBefore": "9999-12-31T23:59:59-01:00"}, "notBefore"),
        ({"handler": "h", "notBefore": "0001-01-01T00:00:00+01:00"}, "notBefore"),
        ({"handler": "h", "notBefore": "2026-01-01T00:00:00+99:99"}, "notBefore"),
        ({"handler": "h", "notBefore": "2026-01-01T00:00:00x5Z"}, "notBefore"),
    ],
)
def test_what_cannot_be_read_of_a_specification_is_named_and_left_out(spec: dict[str, Any], field: str) -> None:
    task = Task.from_object(make_object(make_task()) | {"spec": {**spec, "queue": "reports"}})
    assert task.unreadable.startswith(f"{field}: ")
    assert task.spec == TaskSpec(handler=spec.get("handler") or "", queue="reports")


def test_what_cannot_be_read_of_a_status_is_left_out_and_the_rest_stands() -> None:
    body = make_object(make_task(phase=Phase.RUNNING, attempt=3, status={"worker": "w"}))
    body["status"] |= {"startTime": "0000-01-01T00:00:00Z", "lastError": {"attempt": 2, "reason": "OfANewerVersion"}}
    task = Task.from_object(body)
    assert (task.unreadable, task.status) == ("", TaskStatus(phase=Phase.RUNNING, attempt=3, worker="w"))


def test_a_time_of_the_first_years_has_four_digits_of_year() -> None:
    written = TaskStatus(start_time=datetime(900, 1, 2, tzinfo=UTC)).to_object()
    assert written["startTime"] == "0900-01-02T00:00:00Z"


def test_a_frozen_model_is_not_changed_by_accident() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_task().spec.queue = "other"  # type: ignore[misc]


def test_terminal_phases_are_final_and_the_selector_leaves_them_out() -> None:
    assert {phase for phase in Phase if phase.terminal} == {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED}
    assert OPEN_SELECTOR == "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Cancelled"
    assert [make_task(phase=phase).finished for phase in Phase] == [phase.terminal for phase in Phase]


def test_reasons_are_one_camel_case_word_each() -> None:
    assert all(reason.isalpha() and reason[0].isupper() and len(reason) <= 64 for reason in Reason)
    assert [reason for reason in Reason if reason.final] == [
        "InvalidSpec",
        "PayloadTooLarge",
        "DependencyFailed",
        "DependencyCycle",
        "PayloadTooDeep",
        "UnknownHandler",
        "InvalidArguments",
        "InputMissing",
        "OutputMissing",
        "ResultNotSerialisable",
        "ResultTooLarge",
        "PoisonTask",
        "Cancelled",
        "QueueTimeout",
        "DeadlineExceeded",
        "NotRetryable",
        "TooManyContinuations",
        "AgainInArray",
        "AlreadyRan",
        "ItemsInvalid",
        "ItemsFailed",
        "TooManyFailures",
    ]


def test_labels_are_read_and_no_more_of_them_than_an_event_should_carry() -> None:
    body = make_object(make_task())
    assert Task.from_object(body).labels == {}
    body["metadata"]["labels"] = {"team": "a"}
    assert Task.from_object(body).labels == {"team": "a"}
    body["metadata"]["labels"] = {f"l{number:04}": "x" for number in range(5000, 0, -1)}
    assert list(Task.from_object(body).labels) == [f"l{number:04}" for number in range(1, 65)]


def test_a_task_that_is_being_deleted_is_cancelled() -> None:
    body = make_object(make_task())
    assert (Task.from_object(body).deleting, Task.from_object(body).cancelled) == (False, False)
    body["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert (Task.from_object(body).deleting, Task.from_object(body).cancelled) == (True, True)
    assert make_task(cancel=True).cancelled
