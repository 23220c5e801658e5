from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from taskflow_core.domain.items import ItemState
from taskflow_core.domain.message import Message
from taskflow_core.domain.naming import keys_of
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.ranges import RangeSet
from taskflow_core.ledger.connect import connect_sync
from taskflow_operator.arrays.chunk_delivery import ChunkDelivery
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules.decision import End, Enqueue, Hold
from tests.builders import UID
from tests.integration.arrays.accounts import accounted
from tests.integration.arrays.site import Site

pytestmark = pytest.mark.integration
OTHER = "8d2b7c1e-0a55-4c0b-8a41-6a1b2c3d4e5f"
KEYS = keys_of("team-a")
QUICKLY: dict[str, Any] = {"retryPolicy": {"backoffSeconds": 1, "maxBackoffSeconds": 1, "jitterPercent": 0}}


async def test_all_items_run_once_and_those_that_succeed_are_few_rows(site: Site) -> None:
    await site.start()
    site.work(2)
    site.add(array={"count": 20_000})
    status = await site.finished(UID)
    assert (status["phase"], status["array"]["items"]) == ("Succeeded", "20000/20000")
    await accounted(site, status, 20_000)
    assert set(site.executed.values()) == {1}
    assert len(site.executed) == 20_000
    assert len(await site.rows(UID)) == site.sent < 300
    assert len(site.api.writes) <= 8


async def test_failing_items_are_tried_again_and_told_by_index(site: Site) -> None:
    await site.start()
    site.bad = {attempt: {7, 100, 101} for attempt in (1, 2, 3)} | {1: {7, 100, 101, 500}}
    site.work(2)
    site.add(array={"count": 1000}, **QUICKLY)
    status = await site.finished(UID)
    assert (status["phase"], status["reason"]) == ("Failed", "ItemsFailed")
    assert status["message"] == "3 of 1000 items failed: 7,100-101"
    assert status["array"]["failedIndexes"] == "7,100-101"
    assert (status["array"]["retried"], status["array"]["items"]) == (4, "1000/1000 (3 failed)")
    await accounted(site, status, 1000)
    failed = [row for row in await site.rows(UID) if row.state is ItemState.FAILED]
    assert [(row.first, row.attempts, row.reason, row.message) for row in failed] == [
        (index, 3, Reason.HANDLER_ERROR, f"{index} is bad") for index in (7, 100, 101)
    ]
    assert [site.executed[500, attempt] for attempt in (1, 2, 3)] == [1, 1, 0]


async def test_a_worker_that_dies_loses_nothing(site: Site) -> None:
    await site.start()
    seen: list[str] = []

    def die_at_the_fifth(message: Message) -> bool:
        seen.append(message.member)
        return len(seen) != 5

    site.work(1, die_at_the_fifth)
    site.work(1)
    site.add(array={"count": 3000}, **QUICKLY)
    status = await site.finished(UID)
    assert status["phase"] == "Succeeded"
    await accounted(site, status, 3000)
    assert status["array"]["retried"] > 0
    assert {count for (_, attempt), count in site.executed.items() if attempt == 1} == {1}
    assert {index for index, _ in site.executed} == set(range(3000))


async def test_an_operator_that_dies_again_and_again_loses_nothing_and_runs_nothing_twice(site: Site) -> None:
    await site.start()
    site.lease_ms = 60_000
    gate = threading.Semaphore(0)

    def wait(_: Message) -> bool:
        return gate.acquire(timeout=20)

    site.work(2, wait)
    site.add(array={"count": 5000}, **QUICKLY)
    for _ in range(6):
        await asyncio.sleep(0.15)
        for _ in range(2):
            gate.release()
        await asyncio.sleep(0.02)
        await site.die()
        await site.start()
        (known,) = list(site.tasks)
        site.arrays.decided(known.task, Enqueue())
    for _ in range(1000):
        gate.release()
    status = await site.finished(UID)
    assert status["phase"] == "Succeeded"
    await accounted(site, status, 5000)
    assert set(site.executed.values()) == {1}
    assert len(site.executed) == 5000


async def test_a_flush_loses_nothing(site: Site) -> None:
    await site.start()
    site.work(2)
    site.add(array={"count": 30_000}, **QUICKLY)
    await site.until(lambda: site.sent > 12)
    raw = connect_sync(site.redis_settings)
    raw.flushall()
    raw.connection_pool.disconnect()
    await site.namespaces.data_lost([])
    site.arrays.data_lost(1.0, ["team-a"])
    status = await site.finished(UID)
    assert status["phase"] == "Succeeded"
    await accounted(site, status, 30_000)
    assert {index for index, _ in site.executed} == set(range(30_000))


async def test_while_postgres_is_away_it_stands_still_and_then_goes_on(site: Site) -> None:
    await site.start()
    site.work(2)
    site.add(array={"count": 20_000})
    await site.until(lambda: site.sent > 10)
    site.database.down = True
    await asyncio.sleep(0.7)
    stood = site.sent
    await asyncio.sleep(0.5)
    assert site.sent == stood
    site.database.down = False
    status = await site.finished(UID)
    await accounted(site, status, 20_000)
    assert set(site.executed.values()) == {1}


async def test_a_new_array_says_that_it_waits_for_postgres_and_one_that_runs_too(site: Site) -> None:
    await site.start()
    site.work(2)
    site.add(array={"count": 20_000})
    await site.until(lambda: site.sent > 10)
    site.database.down = True
    site.add(uid=OTHER, name="other", array={"count": 5})
    for uid, phase in ((UID, "Running"), (OTHER, "Pending")):
        await site.until(lambda uid=uid: site.api.statuses.get(uid, {}).get("reason") == "HistoryUnavailable")  # type: ignore[misc]
        told = site.api.statuses[uid]
        assert (told["phase"], told["message"]) == (
            phase,
            "waits for the history database, which has what has ended of the array",
        )
    assert site.arrays.history_wait_seconds > 0
    site.database.down = False
    for uid in (UID, OTHER):
        assert (await site.finished(uid))["phase"] == "Succeeded"
    assert site.arrays.history_wait_seconds == 0


async def test_a_late_end_of_a_chunk_that_was_taken_away_changes_nothing(site: Site) -> None:
    await site.start()
    held = threading.Event()
    slow: list[str] = []

    def pause_once(message: Message) -> bool:
        if not slow:
            slow.append(message.member)
            held.wait(20)
        return True

    (paused,) = site.work(1, pause_once)
    site.work(1)
    site.add(array={"count": 200}, **QUICKLY)
    status = await site.finished(UID)
    held.set()
    await site.until(lambda: paused.fenced)
    await accounted(site, status, 200)
    assert status["array"]["retried"] >= 1


async def test_cancelled_in_the_middle_it_ends_with_what_has_ended(site: Site) -> None:
    await site.start()
    site.lease_ms = 60_000
    gate = threading.Semaphore(6)
    site.work(2, lambda _: gate.acquire(timeout=20))
    task = site.add(array={"count": 100_000})
    await site.until(lambda: site.sent > 8)
    site.arrays.decided(task, End(Phase.CANCELLED, Reason.CANCELLED, "cancelled by spec.cancel"))
    for _ in range(10):
        gate.release()
    status = await site.finished(UID)
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    past = await site.past(UID)
    assert past.succeeded == status["array"]["succeeded"] < 100_000
    assert len(past.ended) == past.succeeded == len(site.executed)


async def test_suspended_it_hands_out_nothing_and_resumed_it_goes_on(site: Site) -> None:
    await site.start()
    task = site.add(array={"count": 5000})
    await site.until(lambda: site.sent >= 4)
    site.arrays.decided(task, Hold(Phase.SUSPENDED, Reason.SUSPENDED, "suspended by spec.suspend", None))
    await site.until(lambda: site.api.statuses.get(UID, {}).get("phase") == "Suspended")
    site.work(2)
    await site.until(site.messages.empty)
    await asyncio.sleep(0.3)
    assert site.executed == {}
    site.arrays.decided(task, Enqueue())
    status = await site.finished(UID)
    await accounted(site, status, 5000)
    assert set(site.executed.values()) == {1}


async def test_too_many_failures_end_it_at_once(site: Site) -> None:
    await site.start()
    site.bad = {1: set(range(0, 100_000, 10))}
    site.work(2)
    site.add(array={"count": 100_000, "maxFailures": 5}, retryPolicy={"maxAttempts": 1})
    status = await site.finished(UID)
    assert (status["phase"], status["reason"]) == ("Failed", "TooManyFailures")
    assert len(site.executed) < 20_000


async def test_as_many_failures_as_may_be_let_it_succeed(site: Site) -> None:
    await site.start()
    site.bad = {1: {3}}
    site.work(1)
    site.add(array={"count": 50, "maxFailures": 1}, retryPolicy={"maxAttempts": 1})
    status = await site.finished(UID)
    assert (status["phase"], status["array"]["items"]) == ("Succeeded", "50/50 (1 failed)")


async def test_items_are_given_as_they_are_and_only_those_that_are_asked_for(site: Site) -> None:
    await site.start()
    got: list[Any] = []
    site.work(1)

    def take(item: Any) -> Any:
        got.append(item)
        return {"got": item}

    site.registry.add("take", take)
    wanted = ["a", {"b": 1}, None, 4, [5]]
    site.add(handler="take", array={"items": wanted, "indexes": "1-2,4"})
    status = await site.finished(UID)
    assert (status["phase"], status["array"]["total"]) == ("Succeeded", 3)
    assert sorted(map(str, got)) == sorted(map(str, [{"b": 1}, None, [5]]))
    assert [(row.first, row.result) for row in await site.rows(UID)] == [
        (1, {"got": {"b": 1}}),
        (2, {"got": None}),
        (4, {"got": [5]}),
    ]


async def test_redis_keeps_no_more_than_what_is_in_flight(site: Site) -> None:
    await site.start()
    site.add(array={"count": 10_000_000, "parallelism": 7})
    await site.until(lambda: site.sent >= 7)
    raw = connect_sync(site.redis_settings)
    try:
        assert raw.zcard(KEYS.ledger) == 7
        assert raw.hlen(KEYS.array(UID)) == 8
    finally:
        raw.connection_pool.disconnect()
    assert RangeSet.parse("0-9999999").ranges == 1


async def test_an_operator_that_dies_after_the_end_stands_leaves_nothing_for_ever(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.start()
    never = asyncio.Event()

    async def hang(*_: object) -> None:
        await never.wait()

    # It has written the status and told the history, and dies before it takes away what Redis has of the array.
    monkeypatch.setattr(ChunkDelivery, "forget", hang)
    site.work(1)
    site.add(array={"count": 100})
    await site.until(lambda: site.api.statuses.get(UID, {}).get("phase") == "Succeeded")
    await site.until(lambda: site.closed)
    await site.die()
    monkeypatch.undo()
    raw = connect_sync(site.redis_settings)
    assert raw.exists(KEYS.array(UID)) == 1
    assert int(str(raw.ttl(KEYS.array(UID)))) > 0
    site.tasks = OpenTasks()
    await site.start()
    await site.until(lambda: raw.exists(KEYS.array(UID)) == 0)
    # Taken away first, told of next.
    await site.until(lambda: site.unknown)
    assert {event.attempt for event in site.unknown} == {1}
    raw.connection_pool.disconnect()


async def test_an_array_that_is_deleted_is_run_no_further(site: Site) -> None:
    await site.start()
    site.lease_ms = 60_000
    gate = threading.Semaphore(6)
    (worker,) = site.work(1, lambda _: gate.acquire(timeout=20))
    task = site.add(array={"count": 100_000})
    await site.until(lambda: site.sent > 8)
    site.tasks.close(UID, 0.0)
    site.arrays.task_finished(task)
    raw = connect_sync(site.redis_settings)
    await site.until(lambda: raw.exists(KEYS.array(UID)) == 0)
    assert raw.zcard(KEYS.ledger) == raw.zcard(KEYS.leases) == 0
    for _ in range(20):
        gate.release()
    await site.until(site.messages.empty)
    await site.until(lambda: worker.fenced)
    raw.connection_pool.disconnect()
