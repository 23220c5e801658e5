from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from taskflow_core.domain import naming
from taskflow_core.domain.event_input import read_event
from taskflow_core.domain.events import EntryId, Event, EventKind, Origin, Stream
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task, TaskStatus
from taskflow_core.errors import Forbidden, NotFound, Unavailable
from taskflow_operator.tasks import event_consumer
from tests.builders import NOW_MS, TOKEN_KEY, UID, make_event, make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts


def started(**fields: object) -> Event:
    return make_event(EventKind.STARTED, id="1-0", **fields)  # type: ignore[arg-type]


def succeeded(id: str = "2-0", **fields: object) -> Event:  # noqa: A002
    return make_event(EventKind.SUCCEEDED, id=id, result=3, **fields)  # type: ignore[arg-type]


def refusals(reason: str) -> float:
    return REGISTRY.get_sample_value("taskflow_events_refused_total", {"consumer": "cr", "reason": reason}) or 0.0


def failed(id: str = "2-0", attempt: int = 1, reason: Reason = Reason.HANDLER_ERROR) -> Event:  # noqa: A002
    return make_event(EventKind.FAILED, id=id, attempt=attempt, reason=reason, message="no")


async def test_a_start_is_shown_and_acknowledged() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        await parts.take(started())
        assert (parts.status(UID).phase, parts.status(UID).worker) == (Phase.RUNNING, "pod-1:ab12")
        assert await parts.done() == ["1-0"]


async def test_an_end_is_acknowledged_after_status_and_ledger() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        parts.api.open.clear()
        await parts.take(started(), succeeded())
        await asyncio.sleep(0.02)
        assert await parts.done() == ["1-0"]
        parts.ledger.down = True
        parts.api.open.set()
        await eventually(lambda: parts.api.phases[-1:] == ["Succeeded"])
        await asyncio.sleep(0.01)
        assert await parts.done() == ["1-0"]
        parts.ledger.down = False
        await eventually(lambda: parts.ledger.settled)
        await eventually(lambda: not parts.resources._closing)
        assert await parts.done() == ["1-0", "2-0"]
    assert parts.tasks.get(UID) is None
    assert parts.journal[-2:] == ["written Succeeded", "settled 1"]


async def test_a_failure_is_closed_before_the_next_attempt_is_entered() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(phase=Phase.QUEUED, retryPolicy={"backoffSeconds": 0}))
        parts.now = parts.now.replace(year=2027)
        await parts.take(started(), failed())
        await eventually(lambda: parts.publisher.sent)
    assert [each for each in parts.journal if each != "written Running"][:4] == [
        "written Pending",
        "settled 1",
        "entered 2",
        "published 2",
    ]


@pytest.mark.parametrize(
    "event",
    [
        succeeded(attempt=1),
        succeeded(attempt=3),
        started(attempt=1),
        make_event(EventKind.LOST, attempt=1, reason=Reason.WORKER_LOST),
    ],
    ids=["an older success", "a later success", "an older start", "an older loss"],
)
async def test_another_attempt_than_the_one_that_counts_changes_nothing(event: Event) -> None:
    async with Parts() as parts:
        before = parts.add(make_task(phase=Phase.QUEUED, attempt=2)).status
        await parts.take(event)
        assert parts.status(UID) == before
        assert await parts.done() == [event.id]


async def test_what_is_being_closed_is_not_acknowledged_when_it_is_read_again() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        parts.api.open.clear()
        await parts.take(succeeded())
        await eventually(lambda: parts.api.running)
        await parts.take(succeeded())
        assert await parts.done() == []
        parts.api.open.set()
        await eventually(lambda: not parts.resources._closing)
        assert await parts.done() == ["2-0"]
    assert parts.journal == ["written Succeeded", "settled 1"]


async def test_an_end_that_was_applied_is_acknowledged_when_it_is_read_again() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        await parts.take(succeeded())
        await eventually(lambda: not parts.resources._closing)
        await parts.take(succeeded())
        await eventually(lambda: not parts.resources._closing)
        assert set(await parts.done()) == {"2-0"}
    assert parts.orphaned.seen == []
    assert parts.journal == ["written Succeeded", "settled 1"]


async def test_a_start_after_the_end_changes_nothing() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        parts.api.open.clear()
        await parts.take(succeeded(), started())
        await eventually(lambda: parts.api.running)
        assert parts.status(UID).phase is Phase.SUCCEEDED
        parts.api.open.set()
        await eventually(lambda: not parts.resources._closing)
    assert parts.api.phases == ["Succeeded"]


async def test_an_end_of_an_unknown_task_stays_unacknowledged_until_it_is_settled() -> None:
    async with Parts() as parts:
        parts.orphaned.settled.clear()
        await parts.take(succeeded(uid="other"))
        await eventually(lambda: parts.orphaned.seen)
        # Read again meanwhile, it is not begun a second time.
        await parts.take(succeeded(uid="other"))
        assert await parts.done() == []
        parts.orphaned.settled.set()
        await eventually(lambda: not parts.resources._orphaned)
        assert await parts.done() == ["2-0"]
    assert parts.orphaned.seen == ["other"]


async def test_ends_of_unknown_tasks_hold_up_no_other_however_many_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_consumer, "MAX_CLOSING", 3)
    async with Parts() as parts:
        parts.orphaned.settled.clear()
        parts.add(make_task(phase=Phase.QUEUED))
        await parts.take(*(succeeded(uid=f"other-{number}", id=f"1-{number}") for number in range(10)))
        await parts.take(succeeded())
        await eventually(lambda: parts.api.phases == ["Succeeded"])
        assert len(parts.resources._orphaned) == 10


async def test_an_end_of_an_unknown_task_that_is_said_often_is_handled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_consumer, "MAX_ORPHANED", 2)
    async with Parts() as parts:
        parts.orphaned.settled.clear()
        await parts.take(*(succeeded(uid="other", id=f"1-{number}") for number in range(1000)))
        await parts.take(*(succeeded(uid=f"other-{number}", id=f"2-{number}") for number in range(10)))
        assert len(parts.resources._orphaned) == 2
        # The repetitions; the end itself and those of more attempts than are handled at a time come again.
        assert await parts.done() == [f"1-{number}" for number in range(1, 1000)]
        parts.orphaned.settled.set()
        await eventually(lambda: not parts.resources._orphaned)
        await parts.take(succeeded(uid="other-9", id="2-9"))
        await eventually(lambda: parts.orphaned.seen == ["other", "other-0", "other-9"])


async def test_what_is_no_event_is_acknowledged_so_that_it_does_not_come_again() -> None:
    entry = EntryId(Stream("team-a", Origin.WORKERS), "9-0")
    async with Parts() as parts:
        await parts.resources.take((), (entry,))
        assert await parts.done_entries() == [entry]


async def test_entries_of_two_namespaces_with_the_same_id_are_not_taken_for_each_other() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        parts.add(make_task(uid="b", name="b", namespace="team-b", phase=Phase.QUEUED))
        parts.api.open.clear()
        await parts.take(succeeded())
        await eventually(lambda: parts.api.running)
        await parts.take(succeeded(uid="b", namespace="team-b"))
        parts.api.open.set()
        await eventually(lambda: not parts.resources._closing)
        assert {str(entry) for entry in await parts.done_entries()} == {"2-0@team-a/workers", "2-0@team-b/workers"}
    assert [uid for uid, _ in parts.api.written] == [UID, "b"]


@pytest.mark.parametrize("kind", [EventKind.STARTED, EventKind.SUCCEEDED, EventKind.DUPLICATE])
async def test_an_event_in_another_namespaces_stream_is_counted_and_changes_nothing(kind: EventKind) -> None:
    before = refusals("task")
    async with Parts() as parts:
        status = parts.add(make_task(phase=Phase.QUEUED)).status
        await parts.take(make_event(kind, namespace="team-b", id="7-0"))
        assert parts.status(UID) == status
        assert await parts.done() == ["7-0"]
    assert refusals("task") == before + 1
    assert parts.orphaned.seen == []


@pytest.mark.parametrize("kind", [EventKind.QUEUED, EventKind.SETTLED, EventKind.PENDING, EventKind.DELETED])
async def test_events_that_move_no_attempt_are_acknowledged(kind: EventKind) -> None:
    async with Parts() as parts:
        before = parts.add(make_task(phase=Phase.QUEUED)).status
        await parts.take(make_event(kind, id="3-0"))
        assert parts.status(UID) == before
        assert await parts.done() == ["3-0"]


@pytest.mark.parametrize(
    ("kind", "counter"), [(EventKind.DUPLICATE, "duplicate_deliveries"), (EventKind.STALE, "stale_events")]
)
async def test_what_was_refused_is_counted_and_changes_nothing_else(kind: EventKind, counter: str) -> None:
    async with Parts() as parts:
        before = parts.add(make_task(phase=Phase.QUEUED)).status
        await parts.take(make_event(kind, id="3-0"), make_event(kind, id="4-0", attempt=7))
        assert parts.status(UID) == before.model_copy(update={counter: 2})
        assert await parts.done() == ["3-0", "4-0"]
    assert parts.api.written == []


async def test_what_was_refused_while_an_attempt_was_closed_is_told_with_the_next() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        parts.api.open.clear()
        await parts.take(started(), failed())
        await eventually(lambda: parts.api.running)
        await parts.take(make_event(EventKind.DUPLICATE, id="3-0"))
        parts.api.open.set()
        await eventually(lambda: not parts.resources._closing)
        assert (parts.status(UID).attempt, parts.status(UID).duplicate_deliveries) == (2, 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (EventKind.DUPLICATE, "taskflow_task_duplicates_fenced_total"),
        (EventKind.STALE, "taskflow_task_stale_finishes_total"),
    ],
)
async def test_what_was_refused_after_its_task_finished_is_counted_too(kind: EventKind, name: str) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value(name, {"queue": "unknown"}) or 0.0

    before = counted()
    async with Parts() as parts:
        await parts.take(make_event(kind, id="3-0"))
        assert await parts.done() == ["3-0"]
    assert counted() == before + 1


async def test_progress_follows_progress_and_nothing_else_goes_back() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        for number in (1, 2):
            await parts.take(make_event(EventKind.PROGRESS, id=f"{number}-0", progress={"done": number}))
        await parts.take(started())
        status = parts.status(UID)
        assert status.progress is not None
        assert (status.progress.done, status.phase) == (2, Phase.QUEUED)
        await parts.take(make_event(EventKind.PROGRESS, id="9-0", attempt=2, progress={"done": 9}))
        assert parts.status(UID) == status


async def test_a_task_that_was_deleted_while_it_ran_is_withdrawn() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        parts.api.failures = [NotFound("deleted")]
        await parts.take(succeeded())
        await eventually(lambda: parts.tasks.get(UID) is None)
    assert parts.journal == ["deleted 1"]


async def test_an_outage_of_the_api_server_delays_the_end_and_loses_nothing() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        parts.api.failures = [Unavailable("down")] * 5
        await parts.take(succeeded())
        await eventually(lambda: parts.tasks.get(UID) is None)
        assert await parts.done() == ["2-0"]
    assert parts.journal == ["written Succeeded", "settled 1"]


async def test_a_second_end_of_the_same_attempt_does_not_count() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        await parts.take(
            succeeded(), make_event(EventKind.LOST, id="3-0", reason=Reason.WORKER_LOST, message="late"), failed("4-0")
        )
        await eventually(lambda: not parts.resources._closing)
        assert sorted(await parts.done()) == ["2-0", "3-0", "4-0"]
    assert parts.journal == ["written Succeeded", "settled 1"]


async def test_an_end_that_cannot_be_understood_does_not_leave_the_task_running_for_ever() -> None:
    # As a newer worker may send it: a reason that this operator does not know.
    token = naming.attempt_token(TOKEN_KEY, "team-a", UID, 1)
    payload = '{"reason": "OfANewerVersion", "message": "no"}'
    fields = {"k": "failed", "uid": UID, "att": "1", "tok": token, "w": "w", "ts": str(NOW_MS), "p": payload}
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.RUNNING))
        await parts.take(read_event(Stream("team-a", Origin.WORKERS), "2-0", fields, TOKEN_KEY))
        await eventually(lambda: "settled 1" in parts.journal)
        error = parts.status(UID).last_error
        assert error is not None
        assert (error.reason, error.type) == (Reason.HANDLER_ERROR, "UnreadableEvent")


async def test_an_event_that_fails_unexpectedly_is_tried_three_times_and_then_counted() -> None:
    before = refusals("unexpected")
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.RUNNING))
        # No reader lets it through.
        wrong = make_event(EventKind.PROGRESS, id="2-0", progress="soon")
        for _ in range(event_consumer.MAX_TRIES - 1):
            await parts.take(wrong)
            assert await parts.done() == []
        assert refusals("unexpected") == before
        await parts.take(wrong)
        assert await parts.done() == ["2-0"]
        assert parts.resources._tries == {}
    assert refusals("unexpected") == before + 1


async def test_an_end_that_fails_unexpectedly_is_tried_three_times_and_never_ends_the_loop() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.RUNNING))
        wrong = make_event(EventKind.FAILED, id="2-0", reason="OfANewerVersion")
        for tries in range(1, event_consumer.MAX_TRIES + 1):
            await parts.take(wrong)
            await eventually(lambda: not parts.resources._closing)
            assert await parts.done() == (["2-0"] if tries == event_consumer.MAX_TRIES else [])
        assert parts.status(UID).phase is Phase.RUNNING
        # The Task is as it was, and its end may still come.
        await parts.take(succeeded("3-0"))
        await eventually(lambda: parts.tasks.get(UID) is None)


async def test_an_unexpected_error_of_one_event_stops_no_other_however_many_there_are() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.RUNNING))
        wrong = [make_event(EventKind.PROGRESS, id=f"2-{number}", progress="soon") for number in range(200)]
        await parts.take(*wrong, succeeded("3-0"))
        await eventually(lambda: parts.tasks.get(UID) is None)


async def test_an_end_that_succeeds_at_the_second_try_is_acknowledged_once() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        real, bugs = parts.closer.close, [RuntimeError("a mistake of ours")]

        async def close(task: Task, status: TaskStatus) -> None:
            if bugs:
                raise bugs.pop()
            await real(task, status)

        parts.closer.close = close  # type: ignore[method-assign]
        for _ in range(2):
            await parts.take(succeeded())
            await eventually(lambda: not parts.resources._closing)
        assert await parts.done() == ["2-0"]
    assert parts.journal == ["written Succeeded", "settled 1"]


async def test_a_right_that_is_missing_for_a_while_loses_no_end() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED))
        parts.api.failures = [Forbidden("RBAC is being changed")]
        await parts.take(succeeded())
        await eventually(lambda: parts.tasks.get(UID) is None)
    assert parts.journal == ["written Succeeded", "settled 1"]
