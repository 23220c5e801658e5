from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from pydantic import SecretStr
from structlog.testing import capture_logs

from taskflow_core.domain import naming
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_async, connect_sync
from taskflow_core.ledger.presence import STOP, PoolView, Presence
from taskflow_core.settings import RedisSettings
from tests.integration.ledger.builders import now_ms, until

pytestmark = pytest.mark.integration
QUEUES = ("default", "bulk")


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
        found = (await side.snapshot()).reports["pod-1"]
    assert (found.namespace, found.queues, found.slots) == ("team-a", QUEUES, 4)
    assert (found.busy, found.serving, found.claimed_ms) == (3, False, None)


async def test_the_times_of_a_report_are_those_of_redis(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    before = now_ms(raw)
    say(presence, claimed_ago_ms=5000)
    after = now_ms(raw)
    async with view(settings) as side:
        seen = await side.snapshot()
    found = seen.reports["pod-1"]
    assert before <= found.at_ms <= after <= seen.now_ms
    assert found.claimed_ms == found.at_ms - 5000


async def test_a_worker_hears_that_its_intake_is_stopped_until_it_is_resumed(
    settings: RedisSettings, presence: Presence
) -> None:
    async with view(settings) as side:
        await side.stop_intake(["pod-1", "pod-2"])
        assert say(presence)
        assert say(presence)
        assert (await side.snapshot()).intakes == {"pod-1": STOP, "pod-2": STOP}
        await side.resume_intake(["pod-1"])
        assert not say(presence)
        assert (await side.snapshot()).intakes == {"pod-2": STOP}


async def test_who_left_is_no_longer_seen_and_the_wish_for_its_name_stays(
    settings: RedisSettings, presence: Presence
) -> None:
    say(presence)
    async with view(settings) as side:
        await side.stop_intake(["pod-1"])
        presence.leave()
        seen = await side.snapshot()
    assert (seen.reports, seen.intakes) == ({}, {"pod-1": STOP})


async def test_of_who_was_forgotten_nothing_is_left(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    say(presence)
    async with view(settings) as side:
        await side.stop_intake(["pod-1"])
        await side.forget(["pod-1", "never-heard-of"])
    assert raw.exists(naming.KEY_WORKERS, naming.KEY_INTAKE) == 0


async def test_nothing_is_asked_of_nobody(settings: RedisSettings, raw: redis.Redis) -> None:
    async with view(settings) as side:
        await side.stop_intake([])
        await side.resume_intake([])
        await side.forget([])
    assert raw.exists(naming.KEY_WORKERS, naming.KEY_INTAKE) == 0


async def test_a_snapshot_counts_what_waits_in_each_list(settings: RedisSettings, raw: redis.Redis) -> None:
    raw.lpush("team-a.default", "1", "2")
    async with view(settings) as side:
        seen = await side.snapshot(["team-a.default", "team-a.bulk"])
    assert seen.lengths == {"team-a.default": 2, "team-a.bulk": 0}


async def test_a_snapshot_is_one_round_trip(settings: RedisSettings, presence: Presence, raw: redis.Redis) -> None:
    say(presence)
    async with view(settings) as side:
        await side.snapshot(["a"])
        before = _reads(raw)
        await side.snapshot(["a", "b", "c"])
        # One read of its socket by Redis, and one of ours that asks.
        assert _reads(raw) - before <= 2


async def test_a_report_that_cannot_be_read_hides_no_other(
    settings: RedisSettings, presence: Presence, raw: redis.Redis
) -> None:
    say(presence)
    raw.hset(naming.KEY_WORKERS, "odd", '{"busy": "many"}')
    async with view(settings) as side:
        with capture_logs() as logs:
            seen = await side.snapshot()
    assert set(seen.reports) == {"pod-1"}
    assert [(each["event"], each["worker"]) for each in logs] == [("worker_report_invalid", "odd")]


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
            await side.snapshot(["a"])
        for act in (side.stop_intake, side.resume_intake, side.forget):
            with pytest.raises(Unavailable):
                await act(["pod-1"])


def _reads(raw: redis.Redis) -> int:
    found: Any = raw.info("stats")
    return int(found["total_reads_processed"])


def test_a_worker_that_says_it_again_is_one_worker(presence: Presence, raw: redis.Redis) -> None:
    say(presence)
    first = raw.hget(naming.KEY_WORKERS, "pod-1")
    until(raw, lambda: (say(presence), raw.hget(naming.KEY_WORKERS, "pod-1") != first)[1])
    assert raw.hlen(naming.KEY_WORKERS) == 1
