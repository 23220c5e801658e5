"""What the user says while something else is going on is neither lost nor in anybody's way."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from taskflow_core.domain.attempts import AttemptKey
from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Dependency, Task
from taskflow_operator.tasks.cycles import find_cycle
from taskflow_operator.tasks.finished_observer import FinishedObserver
from taskflow_operator.tasks.observer import Observer
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.retention import Retention
from taskflow_operator.tasks.rules import transitions
from tests.builders import NOW, NOW_MS, UID, make_event, make_object, make_task
from tests.unit.taskflow_operator.fakes import FakeKube, at, eventually
from tests.unit.taskflow_operator.parts import Parts

KEY = AttemptKey("team-a", UID, 1)


def change(parts: Parts, **fields: Any) -> None:
    known = parts.tasks.get(UID)
    assert known is not None
    known.task = known.task.model_copy(update={"spec": known.task.spec.model_copy(update=fields)})
    parts.work_queue.add(UID)


def failed(seconds: float = 3) -> Event:
    return make_event(EventKind.FAILED, id="2-0", time_ms=NOW_MS + int(seconds * 1000), reason=Reason.HANDLER_ERROR)


async def test_a_cancellation_that_came_while_an_attempt_was_closed_does_not_wait_for_the_next_attempt() -> None:
    async with Parts() as parts:
        task = parts.add(make_task(phase=Phase.RUNNING, retryPolicy={"backoffSeconds": 600}))
        parts.api.open.clear()
        job = asyncio.create_task(parts.closer.close(task, transitions.ended(task, failed(), 0)))
        await eventually(lambda: parts.api.running)
        change(parts, cancel=True)
        await asyncio.sleep(0.01)
        parts.api.open.set()
        await job
        await eventually(lambda: parts.tasks.get(UID) is None)
    assert parts.api.phases == ["Pending", "Cancelled"]


async def test_a_stop_that_fell_due_while_redis_data_were_recovered_is_asked_for_afterwards() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.RUNNING, cancel=True))
        parts.ledger.claims[KEY] = "pod-1|7|x"
        known = parts.tasks.get(UID)
        assert known is not None
        known.held = True
        parts.work_queue.add(UID)
        await asyncio.sleep(0.02)
        assert parts.ledger.stops == []
        known.held = False
        parts.pass_time(5)
        parts.work_queue.add_at("nobody", NOW)
        await eventually(lambda: parts.ledger.stops)


@pytest.mark.parametrize("phase", [None, Phase.PENDING])
async def test_a_cancelled_task_that_runs_unseen_is_asked_to_stop_and_not_declared_ended(phase: Phase | None) -> None:
    # The operator died within the second in which it keeps quiet, so the resource does not show what Redis knows.
    async with Parts() as parts:
        parts.add(make_task(phase=phase))
        parts.ledger.claims[KEY] = "pod-1|7|x"
        change(parts, cancel=True)
        await eventually(lambda: parts.ledger.stops == [(KEY, Reason.CANCELLED)])
        assert parts.tasks.get(UID) is not None


async def test_a_suspended_task_that_is_queued_unseen_leaves_its_queue() -> None:
    async with Parts() as parts:
        parts.add(make_task())
        parts.ledger.waiting.add(KEY)
        change(parts, suspend=True)
        await eventually(lambda: parts.status(UID).phase is Phase.SUSPENDED)
        assert parts.ledger.waiting == set()


@pytest.mark.parametrize(("fields", "sent"), [({}, True), ({"suspend": True}, False), ({"cancel": True}, False)])
async def test_what_leaves_its_queue_is_not_published_for_its_new_priority(fields: dict[str, Any], sent: bool) -> None:
    parts = Parts()
    requeued: list[Task] = []
    observer = Observer(
        parts.tasks,
        parts.writer,
        parts.closer,
        cast("Any", FakeKube()),
        dispatch=lambda _: None,
        requeue=requeued.append,
    )
    observer.observe(make_object(make_task(phase=Phase.QUEUED)))
    observer.observe(make_object(make_task(phase=Phase.QUEUED, generation=2, priority=5, **fields)))
    assert bool(requeued) is sent


async def test_a_dependency_that_cannot_be_looked_up_delays_no_other_task() -> None:
    async with Parts() as parts:
        parts.dependencies.away = True
        parts.serve("default")
        parts.add(make_task(uid="waits", name="waits", dependsOn=[{"name": "long-gone"}]))
        parts.add(make_task())
        parts.work_queue.add("waits")
        parts.work_queue.add(UID)
        await eventually(lambda: [sent.message.name for sent in parts.publisher.sent] == ["report"])


LONG = 5000


class Counted(str):
    """A name that counts how often names are compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


async def test_a_long_chain_costs_as_many_comparisons_as_it_has_tasks_and_not_their_square() -> None:
    tasks = OpenTasks()
    for number in range(LONG):
        task = make_task(uid=str(number), name=str(number))
        wanted = (Dependency.model_construct(name=Counted(number + 1)),)
        tasks.add(task.model_copy(update={"spec": task.spec.model_copy(update={"depends_on": wanted})}))
    middle = tasks.by_name("team-a", str(LONG // 2))
    assert middle is not None
    Counted.compared = 0
    assert await find_cycle(middle.task, tasks) == ()
    # Each of them is looked at, in the operator's only loop.
    assert LONG // 2 <= Counted.compared <= 10 * LONG


def test_an_attempt_that_ran_was_not_too_long_in_its_queue() -> None:
    # Its start was not heard of: the stream was trimmed, or Redis lost it.
    task = make_task(queueTimeoutSeconds=2)
    queued = transitions.queued(task, Reason.WAITING_FOR_WORKER, "waits", NOW)
    status = transitions.ended(task.model_copy(update={"status": queued}), failed(60), 0)
    assert (status.phase, status.reason, status.attempts) == (Phase.PENDING, "BackingOff", 1)


@pytest.mark.parametrize("spec", [{"retryPolicy": {"maxAttempts": 1}}, {"cancel": True}], ids=str)
def test_the_last_attempt_counts_even_if_its_start_was_never_heard_of(spec: dict[str, Any]) -> None:
    assert transitions.ended(make_task(phase=Phase.QUEUED, **spec), failed(), 0).attempts == 1


async def test_progress_and_refusals_that_are_read_again_change_nothing() -> None:
    async with Parts() as parts:
        parts.add(make_task(phase=Phase.RUNNING))
        told = [
            make_event(EventKind.PROGRESS, id="2-9", progress={"done": 1}),
            make_event(EventKind.DUPLICATE, id="2-10"),
            make_event(EventKind.PROGRESS, id="2-11", progress={"done": 2}),
        ]
        await parts.take(*told)
        await parts.done()
        before = parts.status(UID)
        await parts.take(*told[:2])
        assert parts.status(UID) == before
        assert before.progress is not None
        assert (before.progress.done, before.duplicate_deliveries) == (2, 1)


class Stored:
    async def stored(self, uids: Any) -> set[str]:
        return set(uids)


class Kept:
    def __init__(self, cap: int) -> None:
        self.now, self.kube = NOW, FakeKube()
        self.retention = Retention(
            cast("Any", self.kube), Stored(), default_seconds=None, per_namespace=cap, now=lambda: self.now
        )

    def ended(self, name: str, seconds: float, ttl: int | None = None) -> dict[str, Any]:
        task = make_task(
            uid=name,
            name=name,
            phase=Phase.SUCCEEDED,
            status={"completion_time": at(seconds), "observed_generation": 1},
            ttlSecondsAfterFinished=ttl,
        )
        self.kube.objects[name] = make_object(task)
        self.retention.finished(task)
        return make_object(task)

    async def deleted_by(self, seconds: float) -> list[str]:
        self.now = at(seconds)
        while due := self.retention._take():
            await self.retention._delete(due)
        return sorted(body["preconditions"]["uid"] for body in self.kube.bodies if body is not None)


async def test_above_the_cap_the_oldest_go_whatever_order_they_were_listed_in() -> None:
    kept = Kept(2)
    for name, ended in (("a", 4), ("b", 1), ("c", 3), ("d", 0), ("e", 2)):
        kept.ended(name, ended)
    assert await kept.deleted_by(4) == ["b", "d", "e"]


async def test_what_was_deleted_for_its_time_does_not_count_for_the_cap() -> None:
    kept = Kept(2)
    kept.ended("old", 0)
    for number in range(1, 5):
        kept.ended(f"short{number}", number, ttl=0)
        assert await kept.deleted_by(number) == [f"short{each}" for each in range(1, number + 1)]


async def test_what_a_user_deleted_does_not_count_for_the_cap() -> None:
    kept = Kept(2)
    first = kept.ended("a", 0)
    kept.ended("b", 1)
    kept.kube.pages = [[first]]
    await FinishedObserver(cast("Any", kept.kube), kept.retention).list()
    kept.ended("c", 2)
    assert await kept.deleted_by(9) == []
