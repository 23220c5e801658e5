from __future__ import annotations

from typing import Any

from taskflow_core.domain.attempts import AttemptKey, Limited
from taskflow_core.domain.events import EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_operator.isolated.launcher import WAITING_MESSAGE
from taskflow_operator.tasks import dispatcher
from tests.builders import UID, make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts

KEY = AttemptKey("team-a", UID, 1)


async def test_a_large_batch_goes_in_parts_and_in_order() -> None:
    async with Parts() as parts:
        parts.serve("default")
        names = [f"{number:04}" for number in range(dispatcher.BATCH + 20)]
        for name in names:
            parts.add(make_task(uid=name, name=name))
            parts.work_queue.add(name)
        await eventually(lambda: len(parts.publisher.sent) == len(names))
    assert [sent.message.name for sent in parts.publisher.sent] == names


async def test_a_task_that_cannot_be_sent_stops_no_other() -> None:
    # The API server admits arguments nested 300 deep; pydantic serialises no more than 255 levels.
    deep: Any = None
    for _ in range(300):
        deep = [deep]
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(uid="deep", name="deep", args=[deep]))
        parts.add(make_task())
        parts.work_queue.add("deep")
        parts.work_queue.add(UID)
        await eventually(lambda: UID in {sent.message.uid for sent in parts.publisher.sent}, seconds=2)


async def test_a_message_that_cannot_be_written_stops_no_other_that_is_sent_again() -> None:
    deep: Any = None
    for _ in range(300):
        deep = [deep]
    async with Parts() as parts:
        parts.serve("default")
        tasks = [
            parts.add(make_task(uid="deep", name="deep", phase=Phase.QUEUED, args=[deep])),
            parts.add(make_task(phase=Phase.QUEUED)),
        ]
        await parts.delivery.republish_all(tasks)
    assert [sent.message.uid for sent in parts.publisher.sent] == [UID]


async def test_an_end_that_fails_unexpectedly_is_tried_again() -> None:
    async with Parts() as parts:
        parts.ledger.bug = [AssertionError("nobody thought of it")]
        parts.add(make_task(phase=Phase.QUEUED, cancel=True))
        parts.ledger.waiting.add(KEY)
        parts.work_queue.add(UID)
        await eventually(lambda: parts.ledger.bug == [] and not parts.delivery._background._tasks)
        assert parts.tasks.get(UID) is not None
        parts.work_queue.add(UID)
        await eventually(lambda: parts.tasks.get(UID) is None)
    assert parts.ledger.settled[0][1] is EventKind.SETTLED


async def test_an_isolated_task_is_entered_and_launched_in_place_of_published() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(args=[1], isolation="Pod"))
        parts.work_queue.add(UID)
        await eventually(lambda: parts.launcher.launched and parts.api.written)
        assert parts.journal[:2] == ["entered 1", "launched 1"]
        assert parts.launcher.launched[0].spec.args == (1,)
        assert parts.publisher.sent == []
        assert parts.status(UID).message == WAITING_MESSAGE
        parts.launcher.problems[UID] = "pod p: ImagePullBackOff"
        parts.work_queue.add(UID)
        await eventually(lambda: parts.status(UID).message == "pod p: ImagePullBackOff")
        assert (parts.status(UID).phase, len(parts.launcher.launched)) == (Phase.QUEUED, 1)


async def test_an_isolated_task_waits_for_a_pool_too() -> None:
    async with Parts() as parts:
        parts.add(make_task(isolation="Pod"))
        parts.work_queue.add(UID)
        await eventually(lambda: parts.api.written)
        assert parts.status(UID).reason == Reason.NO_WORKER_POOL
        parts.serve("default")
        await eventually(lambda: parts.launcher.launched)


async def test_a_task_that_a_limit_refuses_is_held_and_entered_when_the_limit_lets_it() -> None:
    async with Parts() as parts:
        parts.serve("default")
        limit = Limited("LimitReached", "waits for TaskLimit 'exports': 4 of 4 are in use", 2000)
        parts.ledger.limits[UID] = limit
        parts.add(make_task())
        parts.work_queue.add(UID)
        await eventually(lambda: parts.api.written)
        assert (parts.status(UID).phase, parts.status(UID).reason) == (Phase.PENDING, "LimitReached")
        assert parts.status(UID).message == limit.message
        assert parts.publisher.sent == []
        del parts.ledger.limits[UID]
        parts.pass_time(2)
        parts.work_queue.add_at("nobody", parts.now)
        await eventually(lambda: parts.publisher.sent)
    assert len(parts.ledger.notes) == 1
