"""A Task that kills the workers that run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task, TaskStatus
from taskflow_operator.tasks.rules import transitions
from tests.builders import UID, make_event, make_object, make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts

LOST: dict[str, Any] = {"reason": Reason.WORKER_LOST, "message": "its lease ran out"}
ENDS: dict[str, tuple[EventKind, dict[str, Any]]] = {
    "error": (EventKind.FAILED, {"reason": Reason.HANDLER_ERROR, "message": "no"}),
    "drain": (EventKind.RELEASED, {"reason": Reason.DRAIN}),
    "forgotten": (EventKind.LOST, {"reason": Reason.BROKER_DATA_LOST}),
}


def after(ends: Sequence[str], *, limit: int = 3, **spec: Any) -> TaskStatus:
    """The status after attempts that ended so: names of `ENDS`, or of workers that died."""
    policy = {"maxAttempts": 100, "backoffSeconds": 0}
    task = make_task(phase=Phase.RUNNING, **{"retryPolicy": policy, **spec})
    for end in ends:
        assert not task.finished
        kind, payload = ENDS.get(end, (EventKind.LOST, LOST))
        event = make_event(kind, attempt=task.status.attempt, worker="w" if end in ENDS else end, **payload)
        status = transitions.ended(task, event, 0.0, max_lost_workers=limit)
        # What the next operator knows is what stands in the resource.
        task = Task.from_object(make_object(task.model_copy(update={"status": status})))
    return task.status


def test_after_three_different_workers_in_a_row_it_ends_whatever_attempts_are_left() -> None:
    status = after(["pod-a:1", "pod-b:1", "pod-b:2"])
    assert (status.phase, status.reason, status.attempt) == (Phase.FAILED, Reason.POISON_TASK, 3)
    assert status.message == (
        "3 workers in a row died while they ran it: pod-a:1, pod-b:1, pod-b:2; attempt 3: its lease ran out"
    )
    assert status.last_error is not None
    assert status.last_error.reason is Reason.WORKER_LOST
    assert status.lost_workers == ("pod-a:1", "pod-b:1", "pod-b:2")


@pytest.mark.parametrize(
    ("ends", "lost"),
    [
        (["a", "b"], ("a", "b")),
        (["a", "a", "b", "a", "b"], ("a", "b")),
        (["a", "b", "error"], ()),
        (["a", "b", "error", "c"], ("c",)),
        (["a", "drain", "b"], ("a", "b")),
        (["a", "forgotten", "b"], ("a", "b")),
    ],
    ids=["two", "the same ones", "an error", "an error between", "handed back between", "lost data between"],
)
def test_less_than_that_is_followed_by_another_attempt(ends: list[str], lost: tuple[str, ...]) -> None:
    status = after(ends)
    assert (status.phase, status.lost_workers) == (Phase.PENDING, lost)


def test_the_operator_sets_the_number() -> None:
    assert after(["a"], limit=1).reason == Reason.POISON_TASK
    assert after(list("abcdefghi"), limit=10).phase is Phase.PENDING
    assert after(list("abcdefghij"), limit=10).reason == Reason.POISON_TASK


def test_attempts_that_are_used_up_first_end_it_as_ever() -> None:
    assert after(["a", "b"], retryPolicy={"maxAttempts": 2}).reason == Reason.WORKER_LOST


def test_in_pods_of_their_own_attempts_take_no_worker_from_others() -> None:
    assert after(["a", "b", "c", "d"], isolation="Pod").phase is Phase.PENDING


def test_a_success_forgets_them() -> None:
    task = make_task(phase=Phase.RUNNING, status={"lost_workers": ["a", "b"]})
    assert transitions.ended(task, make_event(EventKind.SUCCEEDED), 0.0).lost_workers == ()


async def test_the_controller_ends_it() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(phase=Phase.RUNNING, attempt=3, status={"lost_workers": ["a", "b"]}))
        await parts.take(make_event(EventKind.LOST, attempt=3, worker="c", **LOST))
        await eventually(lambda: parts.finished)
    assert (parts.finished[0].uid, parts.finished[0].status.reason) == (UID, Reason.POISON_TASK)
