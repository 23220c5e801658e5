from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import AttemptKey
from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import MAX_PAYLOAD_BYTES, Task
from taskflow_operator.tasks import dispatcher
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.rules.decision import DependencyState
from tests.builders import NOW, NOW_MS, TOKEN_KEY, UID, make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts

KEY = AttemptKey("team-a", UID, 1)


def backing_off(seconds: float) -> dict[str, Any]:
    return {
        "reason": Reason.BACKING_OFF,
        "message": "attempt 1: no",
        "next_attempt_time": NOW + timedelta(seconds=seconds),
    }


async def test_an_admitted_task_is_entered_before_it_is_published() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(args=[1], priority=3))
        parts.work_queue.add(UID)
        await eventually(lambda: parts.publisher.sent and parts.api.written)
    # The status may be written before or after.
    assert [each for each in parts.journal if each != "written Queued"] == ["entered 1", "published 1"]
    (sent,) = parts.publisher.sent
    assert sent.entered_ms == NOW_MS
    assert (sent.message.member, sent.message.args, sent.message.priority) == (f"{UID}:1", (1,), 3)
    assert sent.message.token == naming.attempt_token(TOKEN_KEY, "team-a", UID, 1)
    assert parts.api.phases == ["Queued"]
    assert parts.status(UID).reason == Reason.WAITING_FOR_WORKER


async def test_waking_a_task_twice_publishes_it_once() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task())
        for _ in range(3):
            parts.work_queue.add(UID)
            await eventually(lambda: parts.publisher.sent)
        await asyncio.sleep(0.01)
    assert parts.journal.count("published 1") == 1


async def test_a_pool_that_appears_while_a_task_is_being_held_is_not_missed() -> None:
    parts = Parts()
    parts.tasks.add(make_task())
    assert parts.tasks.get(UID).task.status.phase is None  # type: ignore[union-attr]
    parts.pool_changes.changed("team-a")
    assert await parts.work_queue.take(10) == [UID]


async def test_while_redis_is_away_nothing_is_lost() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.ledger.down = True
        parts.add(make_task())
        parts.work_queue.add(UID)
        await asyncio.sleep(0.02)
        assert parts.publisher.sent == []
        parts.ledger.down = False
        await eventually(lambda: parts.publisher.sent)


async def test_a_failed_publication_keeps_the_entry_for_the_reconciler() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.publisher.down = True
        task = parts.add(make_task())
        parts.work_queue.add(UID)
        await eventually(lambda: parts.ledger.waiting)
        parts.publisher.down = False
        await eventually(lambda: parts.status(UID).phase is Phase.QUEUED)
        await asyncio.sleep(0.02)
        assert parts.ledger.waiting == {KEY}
        await parts.delivery.republish_all([task])
        assert [sent.message.attempt for sent in parts.publisher.sent] == [1]


async def test_a_task_waits_for_a_pool_and_goes_when_one_appears() -> None:
    async with Parts() as parts:
        parts.add(make_task(queue="reports"))
        parts.work_queue.add(UID)
        await eventually(lambda: parts.api.written)
        assert parts.status(UID).reason == Reason.NO_WORKER_POOL
        assert [note.attempt for note in parts.ledger.notes] == [1]
        parts.serve("default")
        parts.serve("reports", namespace="team-b")
        await asyncio.sleep(0.01)
        assert parts.publisher.sent == []
        parts.serve("default", "reports")
        await eventually(lambda: parts.publisher.sent)
    assert parts.ledger.notes[0].snapshot.phase is Phase.PENDING


async def test_a_wait_that_goes_on_is_noted_once() -> None:
    async with Parts() as parts:
        parts.add(make_task())
        for _ in range(3):
            parts.work_queue.add(UID)
            await eventually(lambda: parts.api.written)
        await asyncio.sleep(0.01)
    assert len(parts.ledger.notes) == 1
    assert len(parts.api.written) == 1


async def test_a_queued_task_says_when_its_last_pool_went() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task())
        parts.work_queue.add(UID)
        await eventually(lambda: parts.publisher.sent)
        parts.pools.remove("team-a", "main")
        parts.pool_changes.changed("team-a")
        await eventually(lambda: parts.status(UID).reason == Reason.NO_WORKER_POOL)
        assert parts.status(UID).phase is Phase.QUEUED
        parts.serve("default")
        await eventually(lambda: parts.status(UID).reason == Reason.WAITING_FOR_WORKER)
        assert len(parts.publisher.sent) == 1


async def test_a_backoff_is_dispatched_at_its_time() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(phase=Phase.PENDING, attempt=2, status=backing_off(5)))
        parts.work_queue.add(UID)
        await asyncio.sleep(0.02)
        assert parts.publisher.sent == []
        parts.pass_time(5)
        parts.work_queue.add_at("nobody", NOW)
        await eventually(lambda: parts.publisher.sent)
    assert parts.publisher.sent[0].message.attempt == 2


async def test_a_payload_that_is_too_large_fails_the_task_without_a_message() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(args=["x" * MAX_PAYLOAD_BYTES]))
        parts.work_queue.add(UID)
        await eventually(lambda: parts.tasks.get(UID) is None)
    assert parts.journal == ["written Failed", "settled 1"]
    assert parts.api.written[0][1]["reason"] == "PayloadTooLarge"
    assert parts.ledger.settled[0][1] is EventKind.SETTLED


@pytest.mark.parametrize("state", ["closing", "held", "running"])
async def test_what_is_busy_is_left_alone(state: str) -> None:
    async with Parts() as parts:
        parts.serve("default")
        phase = Phase.RUNNING if state == "running" else Phase.QUEUED
        parts.add(make_task(phase=phase, status={"observed_generation": 1}))
        known = parts.tasks.get(UID)
        assert known is not None
        known.closing, known.held = state == "closing", state == "held"
        parts.work_queue.add(UID)
        await asyncio.sleep(0.02)
    assert parts.journal == []


async def test_an_attempt_that_is_claimed_already_is_shown_as_running() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.ledger.claims[KEY] = "pod-1|7|x"
        parts.add(make_task())
        parts.work_queue.add(UID)
        await eventually(lambda: parts.status(UID).phase is Phase.RUNNING)
    assert parts.publisher.sent == []


async def test_a_start_that_came_while_redis_answered_is_not_overwritten() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task())
        known = parts.tasks.get(UID)
        assert known is not None
        known.sequence = 2
        parts.work_queue.add(UID)
        await eventually(lambda: parts.publisher.sent)
    assert parts.status(UID).phase is None


async def test_a_status_of_another_version_stops_nothing() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(uid="odd", phase=Phase.PENDING, attempt=2, status=backing_off(60) | {"reason": "Newer"}))
        parts.add(make_task())
        parts.work_queue.add("odd")
        parts.work_queue.add(UID)
        await eventually(lambda: UID in {sent.message.uid for sent in parts.publisher.sent}, seconds=2)


async def test_suspending_a_queued_task_takes_it_out_of_the_ledger() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(phase=Phase.QUEUED, suspend=True))
        parts.ledger.waiting.add(KEY)
        parts.work_queue.add(UID)
        await eventually(lambda: parts.api.phases == ["Suspended"])
    assert parts.ledger.waiting == set()
    assert parts.publisher.sent == []
    assert parts.ledger.notes[0].snapshot.phase is Phase.SUSPENDED


async def test_cancelling_a_queued_task_ends_it_at_once() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED, cancel=True))
        parts.ledger.waiting.add(KEY)
        parts.work_queue.add(UID)
        await eventually(lambda: parts.tasks.get(UID) is None)
    assert parts.journal == ["withdrawn 1", "written Cancelled", "settled 1"]


async def test_cancelling_what_runs_asks_for_a_stop_again_and_again() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.RUNNING, cancel=True))
        parts.ledger.claims[KEY] = "pod-1|7|x"
        parts.work_queue.add(UID)
        await eventually(lambda: len(parts.ledger.stops) == 1)
        parts.pass_time(6)
        parts.work_queue.add_at("nobody", NOW)
        await eventually(lambda: len(parts.ledger.stops) == 2)
    assert parts.ledger.stops[0] == (KEY, Reason.CANCELLED)
    assert parts.api.written == []


async def test_what_a_worker_took_just_before_the_queue_timeout_goes_on() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.QUEUED, queue_timeout_seconds=1, status={"queued_time": NOW}))
        parts.ledger.claims[KEY] = "pod-1|7|x"
        parts.pass_time(5)
        parts.work_queue.add(UID)
        await asyncio.sleep(0.02)
    assert parts.journal == []
    assert parts.ledger.stops == []


async def test_a_queue_timeout_is_looked_at_in_time() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(queue_timeout_seconds=5))
        parts.work_queue.add(UID)
        await eventually(lambda: parts.publisher.sent)
        parts.pass_time(5)
        parts.work_queue.add_at("nobody", NOW)
        await eventually(lambda: parts.tasks.get(UID) is None)
    assert parts.api.written[-1][1]["reason"] == "QueueTimeout"


async def test_a_new_priority_publishes_again() -> None:
    async with Parts() as parts:
        parts.serve("default")
        task = parts.add(make_task(phase=Phase.QUEUED, priority=9))
        parts.ledger.waiting.add(KEY)
        parts.dispatcher.requeue(task)
        await eventually(lambda: parts.publisher.sent)
    assert parts.publisher.sent[0].message.priority == 9


@pytest.mark.parametrize("phase", [Phase.SUSPENDED, Phase.QUEUED, Phase.RUNNING])
async def test_a_specification_that_changes_nothing_is_observed_nevertheless(phase: Phase) -> None:
    """Or `kubectl wait`, which ignores conditions of an older generation, waits for ever."""
    async with Parts() as parts:
        parts.serve("default")
        task = make_task(suspend=phase is Phase.SUSPENDED)
        parts.add(task)
        parts.work_queue.add(UID)
        await eventually(lambda: parts.api.written)
        if phase is Phase.RUNNING:
            parts.tasks.set_status(UID, transitions.running(task, "w", NOW))
            parts.ledger.claims[KEY] = "w"
        known = parts.tasks.get(UID)
        assert known is not None
        known.task = known.task.model_copy(update={"generation": 2})
        parts.work_queue.add(UID)
        await eventually(lambda: parts.api.written[-1][1]["observedGeneration"] == 2)
        assert parts.status(UID).phase is phase


async def test_what_tasks_wait_for_is_asked_for_many_at_a_time_and_holds_up_no_other() -> None:
    class Slow:
        asked, most, answer = 0, 0, asyncio.Event()

        async def states(self, task: Task) -> tuple[list[DependencyState], tuple[str, ...]]:
            self.asked += 1
            self.most = max(self.most, self.asked)
            await self.answer.wait()
            self.asked -= 1
            if task.uid == "odd":
                raise ZeroDivisionError
            return [DependencyState.SUCCEEDED], ()

    slow = Slow()
    async with Parts() as parts:
        parts.serve("default")
        parts.dependencies.states = slow.states  # type: ignore[method-assign]
        for uid in ("odd", *(f"waits-{number}" for number in range(40))):
            parts.add(make_task(uid=uid, name=uid, depends_on=[{"name": "first"}]))
            parts.work_queue.add(uid)
        await eventually(lambda: slow.asked == dispatcher.LOOKUPS)
        parts.add(make_task())
        parts.work_queue.add(UID)
        await eventually(lambda: [each.message.uid for each in parts.publisher.sent] == [UID])
        slow.answer.set()
        await eventually(lambda: len(parts.publisher.sent) == 41)
    assert slow.most == dispatcher.LOOKUPS
