from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis

from taskflow_core.ledger import stream
from taskflow_core.settings import RedisSettings
from tests.builders import UID
from tests.integration.ledger.builders import make_group, operator

pytestmark = pytest.mark.integration


def add(raw: redis.Redis, count: int = 1) -> list[str]:
    return [str(raw.xadd(KEYS.events, {"k": "started", "uid": UID, "att": 1})) for _ in range(count)]


async def blocked(raw: redis.Redis) -> None:
    """Until a reader waits in Redis."""
    info: Any = {"blocked_clients": 0}
    while not info["blocked_clients"]:
        await asyncio.sleep(0.001)
        info = raw.info("clients")


async def test_a_new_group_reads_what_was_told_before_it(settings: RedisSettings, raw: redis.Redis) -> None:
    ids = add(raw, 3)
    async with operator(settings) as side:
        reader = side.reader()
        assert not await reader.has_group()
        assert await make_group(reader)
        assert await reader.has_group()
        assert await make_group(reader)
        batch = await reader.read()
        assert [event.id for event in batch.events] == ids
        assert batch.broken == ()


async def test_what_was_not_acknowledged_comes_first_after_a_restart(
    settings: RedisSettings, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "READ_COUNT", 2)
    ids = add(raw, 6)
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        for _ in range(3):
            await reader.read()
        await reader.acknowledge([ids[1]])
        await reader.acknowledge([])
        new = add(raw, 1)
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        read = [event.id for _ in range(4) for event in (await reader.read()).events]
        assert read == [ids[0], ids[2], ids[3], ids[4], ids[5], *new]


async def test_two_groups_read_the_same_events(settings: RedisSettings, raw: redis.Redis) -> None:
    ids = add(raw, 2)
    async with operator(settings) as side:
        for group in ("cr", "pg"):
            reader = side.reader(group)
            await make_group(reader)
            assert [event.id for event in (await reader.read()).events] == ids


async def test_a_read_waits_for_the_next_event(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        job = asyncio.create_task(reader.read(block_ms=4000))
        await blocked(raw)
        (stream_id,) = add(raw)
        assert [event.id for event in (await job).events] == [stream_id]


async def test_a_read_without_news_ends_empty(settings: RedisSettings) -> None:
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        assert await reader.read(block_ms=1) == stream.Batch((), ())


async def test_a_group_that_vanished_is_a_lookup_error(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        raw.flushall()
        with pytest.raises(LookupError, match="consumer group cr is gone"):
            await reader.read()
        assert await make_group(reader)


async def test_no_group_is_made_over_data_that_was_lost_after_the_mark(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        reader = side.reader()
        mark = await reader.mark()
        # What this event told went with it, and whoever mirrored all Tasks before knows nothing of it.
        add(raw, 1)
        raw.flushall()
        add(raw, 1)
        assert not await reader.make_group(mark)
        assert not await reader.has_group()
        assert await make_group(reader)
        assert raw.keys("tf:mark:*") == []


async def test_a_group_that_vanishes_while_it_is_read_is_a_lookup_error(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        await reader.read(block_ms=1)
        job = asyncio.create_task(reader.read(block_ms=4000))
        await blocked(raw)
        raw.delete(KEYS.events)
        with pytest.raises(LookupError):
            await job


async def test_a_stream_that_was_read_has_no_gap(settings: RedisSettings, raw: redis.Redis) -> None:
    add(raw, 50)
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        await reader.read()
        await reader.read(block_ms=1)
        raw.xtrim(KEYS.events, maxlen=10, approximate=False)
        assert not await reader.gap()


async def test_a_stream_that_was_trimmed_past_the_reader_has_a_gap(settings: RedisSettings, raw: redis.Redis) -> None:
    add(raw, 5)
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        await reader.read()
        assert not await reader.gap()
        add(raw, 300)
        raw.xtrim(KEYS.events, maxlen=100, approximate=False)
        assert await reader.gap()


async def test_a_missing_group_is_a_gap(settings: RedisSettings, raw: redis.Redis) -> None:
    add(raw)
    async with operator(settings) as side:
        assert await side.reader().gap()


async def test_entries_that_are_no_events_are_told_and_stop_no_others(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    bad = str(raw.xadd(KEYS.events, {"k": "exploded", "uid": UID, "att": 1}))
    other = str(raw.xadd(KEYS.events, {"hello": "world"}))
    (good,) = add(raw)
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        batch = await reader.read()
    assert [event.id for event in batch.events] == [good]
    assert [stream_id for stream_id, _ in batch.broken] == [bad, other]
    assert "no field" in batch.broken[1][1]


async def test_a_backlog_whose_entries_were_trimmed_can_be_acknowledged(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    ids = add(raw, 2)
    async with operator(settings) as side:
        reader = side.reader()
        await make_group(reader)
        await reader.read()
        await reader.read(block_ms=1)
        raw.xtrim(KEYS.events, maxlen=0, approximate=False)
        reader.start_over()
        batch = await reader.read()
        assert [stream_id for stream_id, _ in batch.broken] == ids
        await reader.acknowledge(ids)
    pending = raw.xpending(KEYS.events, "cr")
    assert pending["pending"] == 0


async def test_only_what_all_groups_have_acknowledged_is_trimmed(
    settings: RedisSettings, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEPT_MS", -1000)
    ids = add(raw, 1000)
    async with operator(settings) as side:
        readers = [side.reader(group) for group in stream.GROUPS]
        await side.ledger.trim_stream()
        assert raw.xlen(KEYS.events) == 1000
        for reader in readers:
            await make_group(reader)
            while (batch := await reader.read(block_ms=1)).events:
                await reader.acknowledge([event.id for event in batch.events if event.id != ids[600]])
        await side.ledger.trim_stream()
        # Redis drops whole nodes of a hundred.
        assert 400 <= int(str(raw.xlen(KEYS.events))) <= 500
        for reader in readers:
            assert not await reader.gap()
            reader.start_over()
            assert [event.id for event in (await reader.read(block_ms=1)).events] == [ids[600]]
            await reader.acknowledge([ids[600]])
        monkeypatch.setattr(stream, "KEPT_MS", 60_000)
        await side.ledger.trim_stream()
        assert int(str(raw.xlen(KEYS.events))) >= 400
        monkeypatch.setattr(stream, "KEPT_MS", -1000)
        await side.ledger.trim_stream()
        assert 1 <= int(str(raw.xlen(KEYS.events))) <= 100
        for reader in readers:
            assert not await reader.gap()
        add(raw, 3)
        for reader in readers:
            assert len((await reader.read(block_ms=1)).events) == 3
