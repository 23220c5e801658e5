from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core import resources
from taskflow_core.domain.events import ENDS, Advance, Event, EventKind, Failure
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.resource import Condition
from taskflow_core.domain.task import MAX_AGAIN_SECONDS, Progress, RetryPolicy, Task, TaskStatus
from taskflow_operator.tasks.rules import phase_changes, transitions
from tests.builders import NOW, NOW_MS, make_event, make_task

SCHEMA: dict[str, Any] = yaml.safe_load((resources.path("crds") / "tasks.taskflow.dev.yaml").read_text())["spec"][
    "versions"
][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
WORKER_REASONS = [
    Reason.HANDLER_ERROR,
    Reason.UNKNOWN_HANDLER,
    Reason.INVALID_ARGUMENTS,
    Reason.INPUT_MISSING,
    Reason.OUTPUT_MISSING,
    Reason.RESULT_NOT_SERIALISABLE,
    Reason.RESULT_TOO_LARGE,
    Reason.STORAGE_UNAVAILABLE,
]


def with_status(task: Task, status: TaskStatus) -> Task:
    return task.model_copy(update={"status": status})


def condition_statuses(status: TaskStatus) -> dict[str, str]:
    return {c.type: c.status for c in status.conditions}


def condition(status: TaskStatus, kind: str) -> Condition:
    (found,) = [c for c in status.conditions if c.type == kind]
    return found


def running_task(**fields: Any) -> Task:
    task = make_task(**fields)
    queued = with_status(task, transitions.queued(task, Reason.WAITING_FOR_WORKER, "waits", NOW))
    return with_status(task, transitions.running(queued, "pod-1:ab", NOW))


def failed_event(reason: Reason = Reason.HANDLER_ERROR, *, seconds: float = 3, **fields: Any) -> Event:
    time_ms = NOW_MS + int(seconds * 1000)
    return make_event(
        EventKind.FAILED, time_ms=time_ms, reason=reason, type="ValueError", message="no rows", runMs=5, **fields
    )


def test_waiting_says_why() -> None:
    status = transitions.waiting(make_task(generation=2), Phase.PENDING, Reason.NO_WORKER_POOL, "nobody", NOW)
    assert (status.phase, status.reason, status.message) == (Phase.PENDING, "NoWorkerPool", "nobody")
    assert condition_statuses(status) == {"Accepted": "True", "Queued": "False"}
    assert status.observed_generation == 2
    assert {c.observed_generation for c in status.conditions} == {2}


def test_queued_is_no_longer_due() -> None:
    task = make_task(status={"next_attempt_time": NOW})
    status = transitions.queued(task, Reason.WAITING_FOR_WORKER, "waits", NOW)
    assert (status.phase, status.next_attempt_time) == (Phase.QUEUED, None)
    assert condition_statuses(status) == {"Accepted": "True", "Queued": "True"}


@pytest.mark.parametrize(("seconds", "since"), [(2, NOW + timedelta(milliseconds=900)), (None, NOW)])
def test_the_time_in_the_queue_is_exact_where_it_counts(seconds: int | None, since: datetime) -> None:
    task = make_task(queueTimeoutSeconds=seconds)
    status = transitions.queued(task, Reason.WAITING_FOR_WORKER, "waits", NOW + timedelta(milliseconds=900))
    assert status.queued_time == since


def test_running_names_the_worker_and_left_the_queue() -> None:
    status = running_task().status
    assert (status.phase, status.worker, status.start_time) == (Phase.RUNNING, "pod-1:ab", NOW)
    assert status.message == "attempt 1 runs on pod-1:ab"
    assert condition_statuses(status) == {"Accepted": "True", "Queued": "False", "Running": "True"}


def test_the_start_is_that_of_the_first_attempt() -> None:
    task = make_task(attempt=2, status={"start_time": NOW})
    assert transitions.running(task, None, NOW + timedelta(hours=1)).start_time == NOW


def test_success_keeps_result_outputs_and_times() -> None:
    stored = {"name": "o", "key": "k", "sizeBytes": 1, "sha256": "0", "contentType": "t/t"}
    event = make_event(EventKind.SUCCEEDED, time_ms=NOW_MS + 2500, result={"rows": 3}, outputs=[stored], runMs=2400)
    status = transitions.ended(running_task(), event, 0.0)
    assert (status.phase, status.reason, status.message) == (Phase.SUCCEEDED, "Succeeded", "")
    assert (status.result, status.outputs[0].key) == ({"rows": 3}, "k")
    assert (status.completion_time, status.duration) == (NOW + timedelta(seconds=2.5), "2.5s")
    assert status.worker == event.worker
    assert condition_statuses(status) == {
        "Accepted": "True",
        "Queued": "False",
        "Running": "False",
        "Complete": "True",
        "Finished": "True",
    }


def test_success_without_a_start_counts_back_from_the_end() -> None:
    status = transitions.ended(make_task(), make_event(EventKind.SUCCEEDED, time_ms=NOW_MS + 5000, runMs=1500), 0.0)
    assert (status.start_time, status.duration) == (NOW + timedelta(milliseconds=3500), "1.5s")


def test_a_failure_with_attempts_left_waits_for_the_next() -> None:
    status = transitions.ended(running_task(), failed_event(), 0.0)
    assert (status.phase, status.reason, status.attempt, status.handbacks) == (Phase.PENDING, "BackingOff", 2, 0)
    assert status.message == "attempt 1: ValueError: no rows; attempt 2 follows in 5 s"
    assert status.next_attempt_time == NOW + timedelta(seconds=8)
    assert condition_statuses(status) == {"Accepted": "True", "Queued": "False", "Running": "False"}
    assert status.last_error is not None
    assert (status.last_error.attempt, status.last_error.reason) == (1, Reason.HANDLER_ERROR)
    assert status.completion_time is None


def test_the_last_failure_fails_the_task() -> None:
    task = running_task(attempt=3)
    status = transitions.ended(task, failed_event(), 0.0)
    assert (status.phase, status.reason, status.attempt) == (Phase.FAILED, "HandlerError", 3)
    assert status.message == "attempt 3: ValueError: no rows"
    assert (status.completion_time, status.duration) == (NOW + timedelta(seconds=3), "3.0s")
    assert condition_statuses(status)["Failed"] == condition_statuses(status)["Finished"] == "True"
    assert "Complete" not in condition_statuses(status)


def test_a_final_reason_fails_the_task_at_its_first_attempt() -> None:
    status = transitions.ended(running_task(), failed_event(Reason.INVALID_ARGUMENTS), 0.0)
    assert (status.phase, status.reason, status.attempt) == (Phase.FAILED, "InvalidArguments", 1)


def out_of_memory(attempt: int, beside: int) -> Event:
    return make_event(EventKind.LOST, attempt=attempt, reason=Reason.OUT_OF_MEMORY, message="killed", beside=beside)


def test_an_attempt_that_died_beside_others_for_want_of_memory_does_not_count_once() -> None:
    task = running_task(attempt=3)
    status = transitions.ended(task, out_of_memory(3, beside=1), 0.0)
    assert (status.phase, status.reason, status.attempt, status.handbacks) == (Phase.PENDING, "BackingOff", 4, 1)
    assert status.last_error is not None
    assert status.last_error.reason == "OutOfMemory"
    again = with_status(task, status)
    assert transitions.ended(again, out_of_memory(4, beside=1), 0.0).phase is Phase.FAILED, "it happens to this one"


def test_an_attempt_that_died_alone_for_want_of_memory_counts() -> None:
    status = transitions.ended(running_task(attempt=3), out_of_memory(3, beside=0), 0.0)
    assert (status.phase, status.reason) == (Phase.FAILED, "OutOfMemory")


def test_no_other_failure_is_free_whatever_a_worker_says() -> None:
    event = make_event(EventKind.FAILED, attempt=3, reason=Reason.HANDLER_ERROR, beside=5)
    assert transitions.ended(running_task(attempt=3), event, 0.0).phase is Phase.FAILED


def test_a_handback_is_followed_at_once_and_does_not_count() -> None:
    task = running_task(attempt=3)
    event = make_event(EventKind.RELEASED, attempt=3, reason=Reason.DRAIN, message="stopping")
    status = transitions.ended(task, event, 0.0)
    assert (status.phase, status.reason, status.attempt, status.handbacks) == (Phase.PENDING, "Drain", 4, 1)
    assert status.next_attempt_time == NOW
    again = with_status(task, status)
    assert transitions.ended(again, failed_event(attempt=4), 0.0).phase is Phase.FAILED


def test_a_lost_attempt_names_the_worker_that_had_it() -> None:
    status = transitions.ended(
        running_task(), make_event(EventKind.LOST, worker="", reason=Reason.WORKER_LOST, message="x"), 0.0
    )
    assert status.worker == "pod-1:ab"
    assert status.message.startswith("attempt 1: x; attempt 2 follows")


def test_a_refusal_is_an_end_without_a_start() -> None:
    status = transitions.stopped(make_task(), Phase.FAILED, Reason.PAYLOAD_TOO_LARGE, "too large", NOW)
    assert (status.phase, status.completion_time, status.start_time) == (Phase.FAILED, NOW, None)
    assert condition_statuses(status) == {"Accepted": "False", "Failed": "True", "Finished": "True"}


def test_a_cancellation_is_an_end_of_its_own_kind() -> None:
    status = transitions.stopped(running_task(), Phase.CANCELLED, Reason.CANCELLED, "told to", NOW)
    assert (status.phase, status.reason) == (Phase.CANCELLED, "Cancelled")
    assert condition_statuses(status) == {
        "Accepted": "True",
        "Queued": "False",
        "Running": "False",
        "Cancelled": "True",
        "Finished": "True",
    }


def test_a_worker_that_stopped_as_told_cancels_the_task() -> None:
    event = make_event(EventKind.CANCELLED, reason=Reason.CANCELLED, message="stopped")
    assert transitions.ended(running_task(cancel=True), event, 0.0).phase is Phase.CANCELLED
    assert transitions.ended(running_task(), event, 0.0).phase is Phase.CANCELLED


def test_a_failure_after_the_deadline_is_not_followed_by_another_attempt() -> None:
    status = transitions.ended(running_task(active_deadline_seconds=2), failed_event(seconds=3), 0.0)
    assert (status.phase, status.reason) == (Phase.FAILED, "DeadlineExceeded")
    assert status.last_error is not None
    assert status.last_error.reason is Reason.HANDLER_ERROR


def test_a_success_after_a_cancellation_was_asked_for_is_a_success() -> None:
    status = transitions.ended(running_task(cancel=True), make_event(EventKind.SUCCEEDED), 0.0)
    assert status.phase is Phase.SUCCEEDED


def test_progress_and_checkpoint_replace_only_what_was_told() -> None:
    task = running_task()
    first = transitions.advanced(task, Advance(progress=Progress(done=1, total=3), checkpoint="[1]"))
    second = transitions.advanced(with_status(task, first), Advance(progress=Progress(done=2, total=3)))
    assert (second.checkpoint, second.progress) == ("[1]", Progress(done=2, total=3))


def test_the_next_attempt_gets_the_checkpoint_and_no_progress() -> None:
    task = running_task()
    task = with_status(task, transitions.advanced(task, Advance(progress=Progress(done=1), checkpoint="[1]")))
    status = transitions.ended(task, failed_event(), 0.0)
    assert (status.checkpoint, status.progress, status.attempts) == ("[1]", None, 1)


def test_the_jitter_lengthens_the_wait() -> None:
    task = running_task(retry_policy={"backoffSeconds": 100, "jitterPercent": 50})
    status = transitions.ended(task, failed_event(seconds=0), 0.5)
    assert status.next_attempt_time == NOW + timedelta(seconds=125)


@pytest.mark.parametrize(
    "payload", [{}, {"reason": "NoSuchReason"}, {"reason": "HandlerError", "runMs": "long"}], ids=str
)
def test_a_payload_that_does_not_fit_is_a_value_error(payload: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        transitions.ended(running_task(), make_event(EventKind.FAILED, **payload), 0.0)


@pytest.mark.parametrize("milliseconds", [10**6, 10**12, 2**53])
def test_an_attempt_that_says_it_ran_longer_than_its_task_exists_began_with_it(milliseconds: int) -> None:
    task = make_task(phase=Phase.QUEUED)
    event = make_event(EventKind.SUCCEEDED, time_ms=NOW_MS + 9000, runMs=milliseconds)
    status = transitions.ended(task, event, 0.0)
    assert (status.phase, status.start_time, status.duration) == (Phase.SUCCEEDED, task.created, "9.0s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (59.6, "1m0s"),
        (61, "1m1s"),
        (3600, "1h0m0s"),
        (90061, "25h1m1s"),
    ],
)
def test_durations_are_written_for_a_reader(seconds: float, text: str) -> None:
    assert phase_changes.duration(timedelta(seconds=seconds)) == text


texts = st.text(max_size=1024)
failures = st.builds(
    Failure,
    reason=st.sampled_from(WORKER_REASONS),
    type=st.text(max_size=253),
    message=texts,
    run_ms=st.integers(0, 2**53),
)
events = st.one_of(
    st.builds(
        lambda ms, result: make_event(EventKind.SUCCEEDED, time_ms=NOW_MS + ms, result=result, runMs=ms),
        st.integers(0, 10**9),
        st.integers() | st.text(max_size=20) | st.none(),
    ),
    st.builds(
        lambda ms, failure: make_event(
            EventKind.FAILED, time_ms=NOW_MS + ms, **failure.model_dump(mode="json", by_alias=True)
        ),
        st.integers(0, 10**9),
        failures,
    ),
    st.builds(
        lambda kind, words: make_event(
            kind, reason=Reason.DRAIN if kind is EventKind.RELEASED else Reason.WORKER_LOST, message=words
        ),
        st.sampled_from([EventKind.RELEASED, EventKind.LOST]),
        texts,
    ),
    st.builds(
        lambda seconds, words: make_event(EventKind.AGAIN, seconds=seconds, message=words),
        st.integers(0, MAX_AGAIN_SECONDS),
        texts,
    ),
    st.builds(lambda: make_event(EventKind.STARTED)),
)


def fits(value: Any, schema: dict[str, Any], path: str = "status") -> None:
    """The bounds that the CRD's schema sets, as the API server would check them."""
    if "maxLength" in schema:
        assert schema.get("minLength", 0) <= len(value) <= schema["maxLength"], path
    if "enum" in schema:
        assert value in schema["enum"], path
    if schema.get("type") == "integer":
        assert value >= schema["minimum"], path
    for name, inner in value.items() if schema.get("type") == "object" else ():
        assert name in schema["properties"], f"{path}.{name}"
        fits(inner, schema["properties"][name], f"{path}.{name}")
    if schema.get("type") == "object":
        assert set(schema.get("required", ())) <= set(value), path
    if schema.get("type") == "array":
        assert len(value) <= schema["maxItems"], path
        for inner in value:
            fits(inner, schema["items"], f"{path}[]")


@given(policy=st.builds(RetryPolicy, max_attempts=st.integers(1, 4)), story=st.lists(events, max_size=12))
def test_every_story_ends_once_with_conditions_that_agree(policy: RetryPolicy, story: list[Event]) -> None:
    task = make_task(retry_policy=policy)
    task = with_status(task, transitions.queued(task, Reason.WAITING_FOR_WORKER, "waits", NOW))
    for event in story:
        attempt = task.status.attempt
        ends = event.kind in ENDS
        status = transitions.ended(task, event, 0.0) if ends else transitions.running(task, event.worker, NOW)
        task = with_status(task, status)
        fits(status.to_object(), SCHEMA)
        kinds = [c.type for c in status.conditions]
        assert len(kinds) == len(set(kinds))
        found = condition_statuses(status)
        outcomes = [kind for kind in ("Complete", "Failed", "Cancelled") if found.get(kind) == "True"]
        assert status.phase is not None
        assert (found.get("Finished") == "True") == status.phase.terminal
        assert len(outcomes) == (1 if status.phase.terminal else 0)
        if status.phase.terminal:
            assert found["Queued"] == "False"
            assert found.get("Running") != "True"
            assert status.next_attempt_time is None
            assert status.attempt - status.handbacks <= policy.max_attempts
            break
        assert status.attempt == attempt + (1 if ends else 0)
