from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from structlog.testing import capture_logs

from taskflow_core.domain.naming import keys_of
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_async, connect_sync
from taskflow_core.ledger.presence import MAX_REPORT_BYTES, MAX_WORKERS, STOP, PoolView, Presence, WorkerName
from taskflow_core.settings import RedisSettings
from tests.integration.ledger.builders import KEYS, NAMESPACE, now_ms, until

pytestmark = pytest.mark.integration
QUEUES = ("default", "bulk")
ONE, TWO = WorkerName(NAMESPACE, "pod-1"), WorkerName(NAMESPACE, "pod-2")


@pytest.fixture
def presence(settings: RedisSettings) -> Iterator[Presence]:
    client = connect_sync(settings)
    yield Presence(client, "pod-1", "team-a", QUEUES, 4)
    client.connection_pool.disconnect()


@asynccontextmanager
async def view(settings: RedisSettings) -> AsyncIterator[PoolView]:
    client = connect_async(settings)
    try:
        yield PoolView(client)
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


def say(presence: Presence, *, busy: int = 0, serving: bool = True, claimed_ago_ms: int | None = None) -> bool:
    return presence.report(busy=busy, serving=serving, claimed_ago_ms=claimed_ago_ms)


async def test_a_report_arrives_as_it_was_said(settings: RedisSettings, presence: Presence) -> None:
    assert not say(presence, busy=3, serving=False)
    async with view(settings) as side:
        found = (await side.snapshot([NAMESPACE])).reports[ONE]
    assert (found.namespace, found.queues, found.slots) == ("team-a", QUEUES, 4)
    assert (found.busy, found.serving, found.claimed_ms) == (3, False, None)


async def test_the_times_of_a_report_are_those_of_redis(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    before = now_ms(raw)
    say(presence, claimed_ago_ms=5000)
    after = now_ms(raw)
    async with view(settings) as side:
        seen = await side.snapshot([NAMESPACE])
    found = seen.reports[ONE]
    assert before <= found.at_ms <= after <= seen.now_ms
    assert found.claimed_ms == found.at_ms - 5000


async def test_a_worker_hears_that_its_intake_is_stopped_until_it_is_resumed(
    settings: RedisSettings, presence: Presence
) -> None:
    async with view(settings) as side:
        await side.stop_intake([ONE, TWO])
        assert say(presence)
        assert say(presence)
        assert (await side.snapshot([NAMESPACE])).intakes == {ONE: STOP, TWO: STOP}
        await side.resume_intake([ONE])
        assert not say(presence)
        assert (await side.snapshot([NAMESPACE])).intakes == {TWO: STOP}


async def test_who_left_is_no_longer_seen_and_the_wish_for_its_name_stays(
    settings: RedisSettings, presence: Presence
) -> None:
    say(presence)
    async with view(settings) as side:
        await side.stop_intake([ONE])
        presence.leave()
        seen = await side.snapshot([NAMESPACE])
    assert (seen.reports, seen.intakes) == ({}, {ONE: STOP})


async def test_of_who_was_forgotten_nothing_is_left(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    say(presence)
    async with view(settings) as side:
        await side.stop_intake([ONE])
        await side.forget([ONE, WorkerName(NAMESPACE, "never-heard-of")])
    assert raw.exists(KEYS.workers, KEYS.intake) == 0


async def test_nothing_is_asked_of_nobody(settings: RedisSettings, raw: redis.Redis) -> None:
    async with view(settings) as side:
        await side.stop_intake([])
        await side.resume_intake([])
        await side.forget([])
    assert raw.exists(KEYS.workers, KEYS.intake) == 0


async def test_a_snapshot_counts_what_waits_in_each_list(settings: RedisSettings, raw: redis.Redis) -> None:
    raw.lpush("team-a.default", "1", "2")
    async with view(settings) as side:
        seen = await side.snapshot(lists=["team-a.default", "team-a.bulk"])
    assert seen.lengths == {"team-a.default": 2, "team-a.bulk": 0}


async def test_a_snapshot_is_two_round_trips(settings: RedisSettings, presence: Presence, raw: redis.Redis) -> None:
    say(presence)
    async with view(settings) as side:
        await side.snapshot([NAMESPACE], ["a"])
        before = _reads(raw)
        await side.snapshot([NAMESPACE, "team-b", "team-c"], ["a", "b", "c"])
        # Two reads of its socket by Redis, and one of ours that asks.
        assert _reads(raw) - before <= 3


async def test_a_report_that_cannot_be_read_hides_no_other(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    say(presence)
    raw.hset(KEYS.workers, "odd", '{"busy": "many"}')
    async with view(settings) as side:
        with capture_logs() as logs:
            seen = await side.snapshot([NAMESPACE])
    assert set(seen.reports) == {ONE}
    assert [(each["event"], each["worker"]) for each in logs] == [("worker_report_invalid", "odd")]


async def test_many_reports_that_cannot_be_read_are_one_line_of_the_log(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    for name in (NAMESPACE, "team-b"):
        raw.hset(keys_of(name).workers, mapping={f"odd-{number}": "{" for number in range(50)})
    async with view(settings) as pools:
        with capture_logs() as logs:
            await pools.snapshot([NAMESPACE, "team-b"])
    assert sorted((each["namespace"], each["worker"], each["count"]) for each in logs) == [
        (NAMESPACE, "odd-0", 50),
        ("team-b", "odd-0", 50),
    ]
    assert raw.hlen(KEYS.workers) == 0


async def test_a_redis_that_is_away_is_told_as_such() -> None:
    nowhere = RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"))
    client = connect_sync(nowhere)
    lonely = Presence(client, "pod-1", "team-a", QUEUES, 4)
    with pytest.raises(Unavailable):
        say(lonely)
    with pytest.raises(Unavailable):
        lonely.leave()
    async with view(nowhere) as side:
        with pytest.raises(Unavailable):
            await side.snapshot([NAMESPACE], ["a"])
        for act in (side.stop_intake, side.resume_intake, side.forget):
            with pytest.raises(Unavailable):
                await act([ONE])


def _reads(raw: redis.Redis) -> int:
    found: Any = raw.info("stats")
    return int(found["total_reads_processed"])


def test_a_worker_that_says_it_again_is_one_worker(presence: Presence, raw: redis.Redis) -> None:
    say(presence)
    first = raw.hget(KEYS.workers, "pod-1")
    until(raw, lambda: (say(presence), raw.hget(KEYS.workers, "pod-1") != first)[1])
    assert raw.hlen(KEYS.workers) == 1


async def test_reports_of_two_namespaces_are_apart(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    client = connect_sync(settings)
    other = Presence(client, "pod-1", "team-b", ("own",), 1)
    say(presence, busy=3)
    say(other, busy=1)
    there = WorkerName("team-b", "pod-1")
    async with view(settings) as side:
        await side.stop_intake([there])
        seen = await side.snapshot([NAMESPACE, "team-b", "team-c"])
        assert {name: report.busy for name, report in seen.reports.items()} == {ONE: 3, there: 1}
        assert seen.intakes == {there: STOP}
        assert set((await side.snapshot([NAMESPACE])).reports) == {ONE}
        await side.forget([there])
        assert set((await side.snapshot([NAMESPACE, "team-b"])).reports) == {ONE}
    client.connection_pool.disconnect()


HOSTILE = {
    "not UTF-8": (b"\xff\xfe", None),
    "a name with a bar": (b"pod|1", None),
    "a name with spaces": (b"pod 1", None),
    "a name with control characters": (b"pod\x00\n", None),
    "a long name": (b"n" * 1_000_000, None),
    "a long report": (b"long", b"x" * (MAX_REPORT_BYTES + 1)),
    "a huge report": (b"huge", b"x" * 8_000_000),
    "a report that is not UTF-8": (b"bytes", b'{"namespace": "\xff\xfe"}'),
    "a report that is deep": (b"deep", b"[" * 10_000),
    "a report of numbers without end": (b"number", b'{"slots": ' + b"9" * 10_000 + b"}"),
    "nothing at all": (b"", b""),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_report_that_is_none_hides_no_other_and_is_removed(
    settings: RedisSettings, presence: Presence, raw: redis.Redis, case: str
) -> None:
    say(presence)
    good: Any = raw.hget(KEYS.workers, "pod-1")
    name, report = HOSTILE[case]
    raw.hset(KEYS.workers, name, good if report is None else report)
    async with view(settings) as side:
        assert set((await side.snapshot([NAMESPACE, "team-b"])).reports) == {ONE}
    assert raw.hkeys(KEYS.workers) == ["pod-1"]


async def test_a_report_about_another_namespace_or_of_the_future_is_none(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    say(presence)
    good: Any = raw.hget(KEYS.workers, "pod-1")
    raw.hset(keys_of("team-b").workers, "pod-1", good)
    raw.hset(KEYS.workers, "pod-2", re.sub(r'"atMs":[0-9]+', '"atMs":999999999999999', good))
    async with view(settings) as side:
        assert set((await side.snapshot([NAMESPACE, "team-b"])).reports) == {ONE}
    assert raw.exists(keys_of("team-b").workers) == 0


async def test_more_reports_than_any_namespace_has_are_removed_and_who_lives_is_back_at_once(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    say(presence)
    good: Any = raw.hget(KEYS.workers, "pod-1")
    for start in range(0, 30_000, 10_000):
        raw.hset(KEYS.workers, mapping={f"w{number}": good for number in range(start, start + 10_000)})
    other = keys_of("team-b").workers
    raw.hset(other, mapping={f"w{number}": good.replace("team-a", "team-b") for number in range(MAX_WORKERS)})
    async with view(settings) as side:
        with capture_logs() as logs:
            seen = await side.snapshot([NAMESPACE, "team-b"])
        assert len(seen.reports) == MAX_WORKERS
        assert [(each["event"], each["namespace"], each["count"]) for each in logs] == [
            ("worker_reports_removed", NAMESPACE, 30_001)
        ]
        say(presence)
        assert ONE in (await side.snapshot([NAMESPACE])).reports


async def test_a_key_of_another_type_hides_no_other_namespace(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    say(presence)
    raw.set(keys_of("team-b").workers, "x")
    async with view(settings) as side:
        assert set((await side.snapshot(["team-b", NAMESPACE])).reports) == {ONE}
