"""Arrays beside the other parts: what is refused, what a decision means, what a status says, who hears of an event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from taskflow_core.domain.array import MAX_ARRAY_ITEMS, ArraySpec
from taskflow_core.domain.events import EventKind
from taskflow_core.domain.items import ItemHistory, ItemRow, ItemState
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.domain.task import RetryPolicy
from taskflow_core.errors import Conflict, Unavailable
from taskflow_operator.arrays.item_writer import ItemWriter
from taskflow_operator.arrays.state import ArrayState
from taskflow_operator.arrays.summary import array_status, too_many, verdict
from taskflow_operator.pools.served_queues import ServedQueues
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules.decision import End, Enqueue, Facts, Hold, Keep, decide
from taskflow_operator.tasks.rules.validation import invalid
from tests.builders import NOW, UID, make_event, make_object, make_task
from tests.unit.taskflow_operator.fakes import eventually
from tests.unit.taskflow_operator.parts import Parts


@pytest.mark.parametrize(
    ("array", "more", "reason", "words"),
    [
        ({}, {}, Reason.INVALID_SPEC, "exactly one of count, items and itemsFrom"),
        ({"count": 1, "items": [1]}, {}, Reason.INVALID_SPEC, "exactly one of"),
        ({"count": 1}, {"isolation": "Pod"}, Reason.INVALID_SPEC, "isolation"),
        ({"count": 1}, {"outputs": [{"name": "a"}]}, Reason.INVALID_SPEC, "outputs"),
        ({"items": ["x" * 9000, "y" * 8000]}, {}, Reason.PAYLOAD_TOO_LARGE, "itemsFrom"),
        ({"count": 5, "indexes": "3,1-"}, {}, Reason.INVALID_SPEC, "expected indices like 3,7-9"),
        ({"count": 5, "indexes": "3-5"}, {}, Reason.INVALID_SPEC, "expected indices below 5, found 5"),
        ({"items": [1, 2], "indexes": "2"}, {}, Reason.INVALID_SPEC, "expected indices below 2, found 2"),
        ({"count": 5, "indexes": "1", "failedOf": "u"}, {}, Reason.INVALID_SPEC, "at most one"),
    ],
)
def test_what_can_never_be_run_is_refused_with_what_to_do(
    array: dict[str, Any], more: dict[str, Any], reason: Reason, words: str
) -> None:
    wrong = invalid(make_task(array=array, **more))
    assert wrong is not None
    assert wrong[0] is reason
    assert words in wrong[1]


def test_what_can_be_run_is_not() -> None:
    for array in ({"count": MAX_ARRAY_ITEMS}, {"items": ["x" * 7000]}, {"count": 5, "indexes": "0,4"}):
        assert invalid(make_task(array=array)) is None


def test_items_that_are_nested_too_deeply_are_left_out_and_told() -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    body = make_object(make_task(array={"count": 1}))
    body["spec"]["array"] = {"items": [deep]}
    task = type(make_task()).from_object(body)
    assert (task.payload_too_deep, task.spec.array) == (True, None)


def test_a_running_array_that_is_suspended_is_held_where_a_task_runs_on() -> None:
    pools = ServedQueues()
    pools.put("team-a", "p", frozenset({"default"}))
    running: dict[str, Any] = {"phase": Phase.RUNNING, "suspend": True}
    held = decide(make_task(array={"count": 2}, **running), Facts(pools), NOW)
    assert isinstance(held, Hold)
    assert held.phase is Phase.SUSPENDED
    assert isinstance(decide(make_task(**running), Facts(pools), NOW), Keep)
    resumed = make_task(array={"count": 2}, phase=Phase.SUSPENDED)
    assert isinstance(decide(resumed, Facts(pools), NOW), Enqueue)


async def test_a_decision_on_an_array_goes_to_its_drive_and_nothing_of_it_into_the_ledger() -> None:
    async with Parts() as parts:
        parts.serve("default")
        parts.add(make_task(array={"count": 5}))
        parts.work_queue.add(UID)
        await eventually(lambda: parts.arrays.decisions)
    assert isinstance(parts.arrays.decisions[0], Enqueue)
    assert parts.journal == []


async def test_another_priority_sends_the_waiting_chunks_again() -> None:
    async with Parts() as parts:
        task = parts.add(make_task(array={"count": 5}, phase=Phase.QUEUED))
        parts.dispatcher.requeue(task)
        await eventually(lambda: parts.arrays.republished)
    assert parts.publisher.sent == []


async def test_events_of_chunks_are_the_drives_and_refusals_are_counted_as_ever() -> None:
    parts = Parts()
    parts.add(make_task(array={"count": 5}, phase=Phase.RUNNING))
    ended = make_event(EventKind.SUCCEEDED).model_copy(update={"chunk": 0})
    refused = make_event(EventKind.DUPLICATE, id="2-1").model_copy(update={"chunk": 0})
    await parts.take(ended, refused)
    assert parts.arrays.events == [ended]
    assert parts.status(UID).duplicate_deliveries == 1
    assert await parts.done() == ["2-1"]
    # Read again before its drive has acknowledged it, it is not taken twice.
    await parts.take(ended)
    assert parts.arrays.events == [ended]


async def test_the_end_of_a_chunk_whose_array_has_ended_takes_away_what_redis_has_of_it() -> None:
    parts = Parts()
    await parts.take(make_event(EventKind.SUCCEEDED, attempt=3).model_copy(update={"chunk": 7}))
    await eventually(lambda: parts.orphaned.seen)
    assert (parts.arrays.gone, parts.orphaned.seen) == ([("team-a", UID)], [UID])


def run_of(total: int, failed: Sequence[int] = (), *, succeeded: int = 0) -> ArrayState:
    past = ItemHistory(RangeSet(), succeeded, len(failed), 0, RangeSet(list(RangeSet.of(failed).pairs())[:200]))
    return ArrayState(RetryPolicy(), RangeSet([(0, total - 1)]), past, {})


def test_a_status_is_small_whatever_failed() -> None:
    status = array_status(run_of(MAX_ARRAY_ITEMS, range(1_000_000, 1_900_000, 2)))
    assert len(json.dumps(status.model_dump(mode="json", by_alias=True))) < 2048
    assert status.failed_indexes.endswith(",...")
    assert status.items == "450000/10000000 (450000 failed)"


def test_what_is_shown_of_failed_indices_says_when_it_is_not_all() -> None:
    assert array_status(run_of(100, [3, 7, 8, 9])).failed_indexes == "3,7-9"
    many = array_status(run_of(2000, range(0, 1000, 2)))
    assert len(many.failed_indexes) <= 1024
    assert many.failed_indexes.endswith(",...")
    assert array_status(run_of(10)).items == "0/10"


@pytest.mark.parametrize(
    ("most", "failed", "phase", "reason"),
    [
        (None, 0, Phase.SUCCEEDED, Reason.SUCCEEDED),
        (None, 1, Phase.FAILED, Reason.ITEMS_FAILED),
        (0, 0, Phase.SUCCEEDED, Reason.SUCCEEDED),
        (0, 1, Phase.FAILED, Reason.TOO_MANY_FAILURES),
        (3, 3, Phase.SUCCEEDED, Reason.SUCCEEDED),
        (3, 4, Phase.FAILED, Reason.TOO_MANY_FAILURES),
    ],
)
def test_what_failed_items_mean_for_the_task(most: int | None, failed: int, phase: Phase, reason: Reason) -> None:
    spec, run = ArraySpec(count=10, max_failures=most), run_of(10, range(failed), succeeded=10 - failed)
    end = verdict(spec, run)
    assert (end.phase, end.reason) == (phase, reason)
    early = too_many(spec, run)
    assert isinstance(early, End) == (reason is Reason.TOO_MANY_FAILURES)


def test_an_array_is_counted_by_its_chunks_and_not_as_a_task() -> None:
    tasks = OpenTasks()
    tasks.add(make_task(array={"count": 5}, phase=Phase.RUNNING))
    assert tasks.queues.count("team-a", "default", Phase.RUNNING) == 0


class Store:
    """Takes rows, a transaction after the other; `faults` are raised first."""

    def __init__(self) -> None:
        self.transactions: list[dict[str, int]] = []
        self.faults: list[Exception] = []
        self.bad = ""
        self.open = asyncio.Event()

    async def past(self, uid: str) -> ItemHistory:
        return ItemHistory()

    async def failed_of(self, namespace: str, uid: str) -> RangeSet | None:
        return None

    async def store_items(self, ended: Mapping[str, Sequence[ItemRow]]) -> None:
        await self.open.wait()
        if self.faults:
            raise self.faults.pop(0)
        if self.bad in ended:
            raise Conflict("they have ended before")
        self.transactions.append({uid: len(rows) for uid, rows in ended.items()})


ROW = ItemRow(0, 0, ItemState.SUCCEEDED, 1)


async def test_rows_that_come_while_others_are_written_are_one_transaction() -> None:
    store = Store()
    writer = ItemWriter(store)
    first = asyncio.create_task(writer.store("a", [ROW]))
    await asyncio.sleep(0.01)
    more = [asyncio.create_task(writer.store(uid, [ROW, ROW])) for uid in ("a", "b", "c")]
    await asyncio.sleep(0.01)
    store.open.set()
    await asyncio.gather(first, *more)
    assert store.transactions == [{"a": 1}, {"a": 2, "b": 2, "c": 2}]


async def test_an_outage_is_told_to_all_and_a_fault_to_the_one_whose_it_is() -> None:
    store = Store()
    writer = ItemWriter(store)
    jobs = [asyncio.create_task(writer.store(uid, [ROW])) for uid in ("a", "b")]
    await asyncio.sleep(0)
    store.faults.append(Unavailable("history database: away"))
    store.open.set()
    assert [type(each) for each in await asyncio.gather(*jobs, return_exceptions=True)] == [Unavailable, Unavailable]
    store.bad = "b"
    again = [asyncio.create_task(writer.store(uid, [ROW])) for uid in ("a", "b", "c")]
    results = await asyncio.gather(*again, return_exceptions=True)
    assert [type(each) for each in results] == [type(None), Conflict, type(None)]
    assert store.transactions == [{"a": 1}, {"c": 1}]
