from __future__ import annotations

import asyncio

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.errors import Cause, Conflict, Invalid
from taskflow_operator.tasks.rules import transitions
from tests.builders import NOW, UID, make_event, make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts


async def test_the_status_stands_before_the_attempt_is_settled() -> None:
    async with Parts() as parts:
        task = parts.add(make_task(phase=Phase.RUNNING))
        await parts.closer.close(task, transitions.ended(task, make_event(EventKind.SUCCEEDED, result=1), 0.0))
    assert parts.journal == ["written Succeeded", "settled 1"]
    (settled,) = parts.ledger.settled
    assert (settled[0].attempt, settled[0].snapshot.phase, settled[0].snapshot.result) == (1, Phase.SUCCEEDED, 1)


async def test_the_attempt_that_ended_is_settled_and_the_next_one_is_due() -> None:
    async with Parts() as parts:
        task = parts.add(make_task(phase=Phase.RUNNING))
        await parts.closer.close(
            task, transitions.ended(task, make_event(EventKind.FAILED, reason=Reason.HANDLER_ERROR, message="no"), 0.0)
        )
        known = parts.tasks.get(UID)
        assert known is not None
        assert (known.closing, known.task.status.attempt) == (False, 2)
        assert parts.ledger.settled[0][0].attempt == 1
        parts.serve("default")
        parts.pass_time(60)
        parts.work_queue.add(UID)
        await eventually(lambda: parts.publisher.sent)
    assert parts.journal[:2] == ["written Pending", "settled 1"]


async def test_while_the_status_is_written_the_task_is_not_dispatched() -> None:
    async with Parts() as parts:
        parts.serve("default")
        task = parts.add(make_task(phase=Phase.QUEUED))
        parts.api.open.clear()
        status = transitions.ended(task, make_event(EventKind.RELEASED, reason=Reason.DRAIN, message="stop"), 0.0)
        job = asyncio.create_task(parts.closer.close(task, status))
        await eventually(lambda: parts.api.running)
        parts.work_queue.add(UID)
        await asyncio.sleep(0.01)
        assert parts.publisher.sent == []
        parts.api.open.set()
        await job
        parts.pass_time(1)
        await eventually(lambda: parts.publisher.sent)
    assert parts.journal[:4] == ["written Pending", "settled 1", "entered 2", "published 2"]


async def test_a_resource_that_belongs_to_another_task_is_withdrawn() -> None:
    async with Parts() as parts:
        task = parts.add(make_task(phase=Phase.RUNNING))
        parts.api.failures = [Conflict("another uid")]
        await parts.closer.close(task, transitions.ended(task, make_event(EventKind.SUCCEEDED), 0.0))
    assert parts.journal == ["deleted 1"]
    assert parts.tasks.get(UID) is None


async def test_closing_what_is_closed_does_nothing() -> None:
    async with Parts() as parts:
        task = make_task(phase=Phase.RUNNING)
        await parts.closer.close(task, transitions.stopped(task, Phase.FAILED, Reason.PAYLOAD_TOO_LARGE, "x", NOW))
    assert parts.journal == []


async def test_what_is_withdrawn_is_the_attempt_that_counts_now() -> None:
    async with Parts() as parts:
        seen_earlier = parts.add(make_task(phase=Phase.QUEUED))
        parts.tasks.set_status(UID, seen_earlier.status.model_copy(update={"attempt": 2}))
        await parts.closer.withdraw(seen_earlier)
    assert "deleted 2" in parts.journal


REFUSED = Invalid("it does not fit the schema", [Cause("status.lastError", "too long")])


async def test_a_refused_status_is_written_without_what_came_from_the_handler_before_the_next_attempt() -> None:
    async with Parts() as parts:
        task = parts.add(make_task(phase=Phase.RUNNING))
        parts.api.failures = [REFUSED]
        failed = make_event(EventKind.FAILED, reason=Reason.HANDLER_ERROR, message="no")
        await parts.closer.close(task, transitions.ended(task, failed, 0.0))
    (_, written) = parts.api.written[0]
    assert (written["attempt"], written.get("lastError")) == (2, None)
    assert parts.journal[:2] == ["written Pending", "settled 1"]


async def test_the_next_attempt_does_not_start_before_the_resource_has_it() -> None:
    async with Parts() as parts:
        parts.serve("default")
        task = parts.add(make_task(phase=Phase.RUNNING))
        parts.api.failures = [REFUSED, REFUSED]
        failed = make_event(EventKind.FAILED, id="5-0", reason=Reason.HANDLER_ERROR, message="no")
        parts.pass_time(3600)
        await parts.take(failed)
        await eventually(lambda: not parts.api.failures and not parts.resources._closing)
        parts.work_queue.add(UID)
        await asyncio.sleep(0.02)
        # The attempt stays open and its event unacknowledged, so whoever reads it again tries again.
        assert (parts.status(UID).attempt, parts.status(UID).phase) == (1, task.status.phase)
        assert (parts.ledger.settled, parts.publisher.sent, await parts.done()) == ([], [], [])
        await parts.take(failed)
        await eventually(lambda: parts.publisher.sent)
        assert await parts.done() == ["5-0"]
    assert [sent.message.attempt for sent in parts.publisher.sent] == [2]
