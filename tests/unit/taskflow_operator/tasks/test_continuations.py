"""What a handler that raised `Again` makes of its Task."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from taskflow_core.domain.events import Advance, Event, EventKind
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import MAX_CONTINUATIONS, Progress
from taskflow_operator.tasks.rules import transitions
from tests.builders import NOW, NOW_MS, make_event
from tests.unit.taskflow_operator.tasks.test_transitions import (
    condition,
    condition_statuses,
    failed_event,
    running_task,
    with_status,
)


def again_event(seconds: int = 60, *, attempt: int = 1, **payload: Any) -> Event:
    return make_event(EventKind.AGAIN, attempt=attempt, time_ms=NOW_MS + 3000, seconds=seconds, **payload)


def test_a_handler_that_raises_again_waits_without_a_worker_and_without_paying_for_it() -> None:
    task = running_task(retryPolicy={"maxAttempts": 1})
    task = with_status(task, transitions.advanced(task, Advance(progress=Progress(done=2), checkpoint="[1]")))
    status = transitions.ended(task, again_event(message="the export is not ready", checkpoint="[2]"), 0.0)
    assert (status.phase, status.reason, status.attempt) == (Phase.PENDING, "Again", 2)
    assert (status.handbacks, status.continuations) == (1, 1)
    assert status.message == "attempt 1 asked to be run again: the export is not ready; attempt 2 follows in 60 s"
    assert status.next_attempt_time == NOW + timedelta(seconds=63)
    assert (status.checkpoint, status.progress) == ("[2]", Progress(done=2))
    assert status.last_error is None
    assert condition_statuses(status) == {"Accepted": "True", "Queued": "False", "Running": "False"}
    assert condition(status, "Running").reason == "Again"


def test_without_a_checkpoint_the_last_one_is_kept() -> None:
    task = running_task(status={"checkpoint": "[1]"})
    assert transitions.ended(task, again_event(), 0.0).checkpoint == "[1]"


def test_failures_count_as_if_nothing_had_been_continued() -> None:
    policy = {"maxAttempts": 2, "jitterPercent": 0}
    task = running_task(retryPolicy=policy, attempt=8, status={"handbacks": 7, "continuations": 7})
    status = transitions.ended(task, failed_event(attempt=8), 0.0)
    assert (status.phase, status.attempt, status.handbacks, status.continuations) == (Phase.PENDING, 9, 7, 7)
    assert status.next_attempt_time == NOW + timedelta(seconds=3 + 5), "the backoff of a first failure"
    status = transitions.ended(with_status(task, status), failed_event(attempt=9), 0.0)
    assert (status.phase, status.reason) == (Phase.FAILED, "HandlerError")


def test_a_handler_cannot_continue_for_ever() -> None:
    last = {"handbacks": MAX_CONTINUATIONS - 1, "continuations": MAX_CONTINUATIONS - 1}
    task = running_task(attempt=MAX_CONTINUATIONS, status=last)
    status = transitions.ended(task, again_event(attempt=MAX_CONTINUATIONS), 0.0)
    assert (status.phase, status.continuations) == (Phase.PENDING, MAX_CONTINUATIONS)
    status = transitions.ended(with_status(task, status), again_event(attempt=MAX_CONTINUATIONS + 1, message="x"), 0.0)
    assert (status.phase, status.reason) == (Phase.FAILED, "TooManyContinuations")
    assert status.message == ("the handler raised Again more than 10,000 times; attempt 10001 asked to be run again: x")


@pytest.mark.parametrize(
    ("spec", "end"),
    [
        ({"cancel": True}, (Phase.CANCELLED, "Cancelled")),
        ({"activeDeadlineSeconds": 3}, (Phase.FAILED, "DeadlineExceeded")),
    ],
)
def test_what_has_to_end_is_not_continued(spec: dict[str, Any], end: tuple[Phase, str]) -> None:
    status = transitions.ended(running_task(**spec), again_event(checkpoint="[2]"), 0.0)
    assert (status.phase, status.reason) == end
    assert (status.attempt, status.continuations, status.next_attempt_time) == (1, 0, None)
