"""A Task whose worker does not know its handler, before, in and after a rollout of the pool."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from taskflow_core.domain import conditions as c
from taskflow_core.domain.events import Event, EventKind, Failure
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task
from taskflow_operator.arrays.unknown_handler import HandlerWait
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.rules.decision import Enqueue, Facts, Hold, decide
from taskflow_operator.tasks.rules.unknown_handler import Rollout, put_back
from tests.builders import NOW, UID, make_event, make_task
from tests.unit.taskflow_operator.fakes import at, eventually
from tests.unit.taskflow_operator.parts import Parts


def unknown(attempt: int = 1) -> Event:
    return make_event(
        EventKind.FAILED, attempt=attempt, id=f"{attempt}-1", reason=Reason.UNKNOWN_HANDLER, message="no handler 'new'"
    )


def dues(rollout: Rollout | None, upto: float) -> list[float]:
    """When the attempts start, in seconds after the first, while each worker does not know the handler."""
    found, now = [0.0], NOW
    while (back := put_back("new", "pod-1:ab12", NOW, rollout, now)) is not None and found[-1] < upto:
        now = back.due
        found.append((now - NOW).total_seconds())
    return found


def test_without_a_rollout_a_worker_that_knows_it_is_waited_for_a_moment() -> None:
    assert dues(None, 100) == [0, 1, 2, 4, 8, 16, 26, 30]


def test_in_a_rollout_it_is_waited_for_ten_minutes_with_growing_pauses() -> None:
    found = dues(Rollout("main", going=True, seen=NOW), 10_000)
    assert found[:7] == [0, 1, 2, 4, 8, 16, 26]
    assert found[-1] == 600
    assert len(found) < 70


@pytest.mark.parametrize(
    ("seen", "until"), [(-100, 30), (60, 90), (595, 600)], ids=["long ago", "a minute later", "at the end of the time"]
)
def test_pods_that_were_just_replaced_may_still_have_taken_it(seen: float, until: float) -> None:
    rollout = Rollout("main", going=False, seen=at(seen))
    assert put_back("new", None, NOW, rollout, at(until - 0.1)) is not None
    assert put_back("new", None, NOW, rollout, at(until)) is None


def test_the_message_says_who_until_when_and_why() -> None:
    back = put_back("new", "pod-1:ab12", None, Rollout("main", going=True, seen=NOW), NOW)
    assert back is not None
    assert back.message == (
        "worker pod-1:ab12 has no handler 'new'; tries again until 12:10:00 UTC, while WorkerPool 'main' is rolled out"
    )
    back = put_back("new", None, None, None, NOW)
    assert back is not None
    assert back.message == (
        "the worker has no handler 'new'; tries again until 12:00:30 UTC, in case a WorkerPool of its queue is just "
        "being updated"
    )


def ran(**status: Any) -> Task:
    task = make_task(handler="new", retryPolicy={"maxAttempts": 1}, status=status)
    return task.model_copy(update={"status": transitions.running(task, "pod-1:ab12", NOW)})


def test_an_attempt_that_goes_back_does_not_count_and_says_since_when() -> None:
    back = put_back("new", "pod-1:ab12", None, None, NOW)
    assert back is not None
    status = transitions.ended(ran(), unknown(), 0.0, back)
    assert (status.phase, status.reason, status.message) == (Phase.PENDING, Reason.UNKNOWN_HANDLER, back.message)
    assert (status.attempt, status.handbacks, status.next_attempt_time) == (2, 1, at(1))
    assert status.unknown_handler_time == NOW
    assert {each.type: each.status for each in status.conditions} == {
        c.ACCEPTED: "True",
        c.QUEUED: "False",
        c.RUNNING: "False",
    }
    assert status.last_error is not None
    assert status.last_error.reason is Reason.UNKNOWN_HANDLER
    # It is held with these words until it is due.
    pools = ServedQueues()
    pools.put("team-a", "main", frozenset({"default"}))
    task = ran().model_copy(update={"status": status})
    assert decide(task, Facts(pools), NOW) == Hold(Phase.PENDING, Reason.UNKNOWN_HANDLER, back.message, at(1))
    assert decide(task, Facts(pools), at(1)) == Enqueue()


def test_after_its_time_the_task_fails_and_says_how_long_nobody_knew_it() -> None:
    status = transitions.ended(ran(unknown_handler_time=at(-10)), unknown(), 0.0)
    assert (status.phase, status.reason) == (Phase.FAILED, Reason.UNKNOWN_HANDLER)
    assert status.message == "no worker had the handler from 11:59:50 to 12:00:00 UTC; attempt 1: no handler 'new'"
    assert status.unknown_handler_time is None


@pytest.mark.parametrize(
    "event",
    [make_event(EventKind.SUCCEEDED), make_event(EventKind.FAILED, reason=Reason.HANDLER_ERROR, message="no")],
    ids=["success", "error"],
)
def test_an_attempt_that_knew_it_ends_the_wait(event: Event) -> None:
    task = ran(unknown_handler_time=at(-10))
    assert transitions.ended(task, event, 0.0).unknown_handler_time is None


def test_a_cancelled_task_does_not_go_back() -> None:
    task = ran().model_copy(update={"spec": ran().spec.model_copy(update={"cancel": True})})
    assert transitions.ended(task, unknown(), 0.0, put_back("new", None, None, None, NOW)).phase is Phase.CANCELLED


async def test_a_task_waits_through_a_rollout_and_runs_as_the_next_attempt() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.pools.put_rollout("team-a", "main", parts.now, going=True)
        parts.add(make_task(handler="new", retryPolicy={"maxAttempts": 1}))
        parts.work_queue.add(UID)
        await eventually(lambda: "published 1" in parts.journal)
        await parts.take(unknown())
        await eventually(lambda: parts.status(UID).attempt == 2)
        assert parts.status(UID).reason == Reason.UNKNOWN_HANDLER
        assert "until 12:10:00 UTC, while WorkerPool 'main' is rolled out" in parts.status(UID).message
        assert "published 2" not in parts.journal
        parts.pass_time(1)
        parts.work_queue.add(UID)
        await eventually(lambda: "published 2" in parts.journal)
        # The operator wrote the attempt before its message.
        assert parts.journal.index("written Pending") < parts.journal.index("published 2")
        await parts.take(make_event(EventKind.SUCCEEDED, attempt=2, id="9-1"))
        await eventually(lambda: parts.finished)
    assert parts.finished[0].status.phase is Phase.SUCCEEDED


async def test_without_a_rollout_it_fails_after_the_moment_of_grace() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(handler="new", phase=Phase.QUEUED))
        await parts.take(unknown())
        await eventually(lambda: parts.status(UID).attempt == 2)
        parts.pass_time(30)
        parts.work_queue.add(UID)
        await eventually(lambda: "published 2" in parts.journal)
        await parts.take(unknown(2))
        await eventually(lambda: parts.finished)
    assert parts.finished[0].status.reason == Reason.UNKNOWN_HANDLER


def test_of_several_pools_the_one_that_is_rolled_out_counts_and_else_the_latest() -> None:
    pools = ServedQueues()
    for name in ("a", "b"):
        pools.put("team-a", name, frozenset({"default"}))
    assert pools.rollout("team-a", "default") is None
    pools.put_rollout("team-a", "a", NOW, going=True)
    pools.put_rollout("team-a", "b", at(5), going=False)
    assert pools.rollout("team-a", "default") == Rollout("a", going=True, seen=NOW)
    pools.put_rollout("team-a", "a", at(9), going=False)
    # It is over: the time is that of the end, however often it is seen.
    pools.put_rollout("team-a", "a", at(50), going=False)
    assert pools.rollout("team-a", "default") == Rollout("a", going=False, seen=at(9))
    assert pools.rollout("team-a", "other") is None
    assert pools.rollout("team-b", "default") is None
    pools.remove("team-a", "a")
    assert pools.rollout("team-a", "default") == Rollout("b", going=False, seen=at(5))


def chunk_end(kind: EventKind, **payload: Any) -> Event:
    return make_event(kind, **payload).model_copy(update={"chunk": 0})


def test_a_chunk_goes_back_uncounted_and_the_array_pauses() -> None:
    pools, task = ServedQueues(), make_task(handler="new", array={"count": 5})
    wait = HandlerWait(pools)

    def end(now: datetime) -> Event:
        return wait.take(task, chunk_end(EventKind.FAILED, reason="UnknownHandler", message="no"), now)

    released = end(NOW)
    assert released.kind is EventKind.RELEASED
    assert Failure.model_validate(released.payload).reason is Reason.DRAIN
    back = wait.pause(NOW)
    assert back is not None
    assert (wait.since, back.due, wait.pause(at(1))) == (NOW, at(1), None)
    assert end(at(29.9)).kind is EventKind.RELEASED
    assert end(at(30)).kind is EventKind.FAILED


def test_a_chunk_that_knew_it_ends_the_wait_of_the_array() -> None:
    pools, task = ServedQueues(), make_task(handler="new", array={"count": 5})
    wait = HandlerWait(pools)
    wait.since = at(-600)
    wait.take(task, chunk_end(EventKind.SUCCEEDED), NOW)
    assert wait.since is None
    assert wait.take(task, chunk_end(EventKind.FAILED, reason="UnknownHandler"), NOW).kind is EventKind.RELEASED
    other = chunk_end(EventKind.FAILED, reason="InputMissing")
    assert wait.take(task, other, NOW) is other
