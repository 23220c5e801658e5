"""Which streams were written, on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import redis

from taskflow_core.errors import Unavailable
from taskflow_core.ledger import changes
from taskflow_core.ledger.changes import KeyChanges
from taskflow_core.settings import RedisSettings
from tests.integration.ledger.builders import KEYS, operator

pytestmark = pytest.mark.integration


class Listening:
    """A listener that is run again when its connection fails, as the operator does."""

    def __init__(self, client: Any) -> None:
        self.heard: list[Collection[str] | None] = []
        self.failed = 0
        self.failing = asyncio.Event()
        self._news = asyncio.Event()
        self.changes = KeyChanges(client, self._changed)

    def _changed(self, keys: Collection[str] | None) -> None:
        self.heard.append(keys)
        self._news.set()

    async def run(self) -> None:
        while True:
            try:
                await self.changes.run()
            except Unavailable:
                self.failed += 1
                self.failing.set()

    async def hears(self, key: str) -> None:
        """Wait for news of a key, and forget them."""
        async with asyncio.timeout(10):
            while not any(keys is None or key in keys for keys in self.heard):
                self._news.clear()
                await self._news.wait()
        await self.quiet()

    async def quiet(self) -> None:
        """Let what is on its way arrive, and forget it."""
        await asyncio.sleep(0.1)
        self.heard.clear()


@asynccontextmanager
async def listening(settings: RedisSettings, *keys: str) -> AsyncIterator[Listening]:
    async with operator(settings) as side:
        found = Listening(side.client)
        found.changes.watch(keys)
        job = asyncio.create_task(found.run())
        try:
            for key in keys:
                await found.hears(key)
                break
            yield found
        finally:
            job.cancel()
            with suppress(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await job


def write(raw: redis.Redis, key: str = KEYS.events, count: int = 1) -> None:
    pipe = raw.pipeline(transaction=False)
    for _ in range(count):
        pipe.xadd(key, {"k": "x"})
    pipe.execute()


async def test_what_is_written_is_announced_again_and_again(settings: RedisSettings, raw: redis.Redis) -> None:
    async with listening(settings, KEYS.events, KEYS.notes) as found:
        for key in (KEYS.events, KEYS.notes, KEYS.events, KEYS.events):
            write(raw, key)
            await found.hears(key)
        await found.quiet()
        write(raw, KEYS.ledger)
        await asyncio.sleep(0.3)
        assert found.heard == []
        assert found.failed == 0


async def test_a_flush_is_announced_for_all_and_so_is_what_follows(settings: RedisSettings, raw: redis.Redis) -> None:
    async with listening(settings, KEYS.events) as found:
        write(raw)
        await found.hears(KEYS.events)
        raw.flushall()
        await found.hears(KEYS.events)
        write(raw)
        await found.hears(KEYS.events)


async def test_after_its_connection_was_killed_all_is_looked_at_and_announced(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with listening(settings, KEYS.events) as found:
        raw.client_kill_filter(_type="normal", skipme=True)
        write(raw)
        await found.hears(KEYS.events)
        assert found.failed == 1
        write(raw)
        await found.hears(KEYS.events)


async def test_a_flood_is_announced_a_few_times(settings: RedisSettings, raw: redis.Redis) -> None:
    async with listening(settings, KEYS.events) as found:
        for _ in range(20):
            await asyncio.to_thread(write, raw, KEYS.events, 500)
        await asyncio.sleep(0.1)
        assert raw.xlen(KEYS.events) == 10_000
        assert 1 <= len(found.heard) <= 600
        await found.quiet()
        write(raw)
        await found.hears(KEYS.events)


async def test_keys_that_are_added_later_are_announced(settings: RedisSettings, raw: redis.Redis) -> None:
    async with listening(settings, KEYS.events) as found:
        many = [f"tf:{{ns-{number}}}:ev" for number in range(1200)]
        found.changes.watch(many)
        await found.hears(many[-1])
        for key in (many[0], many[-1], KEYS.events):
            write(raw, key)
            await found.hears(key)


async def test_a_listener_ends_when_it_is_cancelled_at_the_moment_of_an_announcement(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    for _ in range(20):
        async with operator(settings) as side:
            heard = asyncio.Event()
            found = KeyChanges(side.client, lambda _, heard=heard: heard.set())  # type: ignore[misc]
            found.watch([KEYS.events])
            job = asyncio.create_task(found.run())
            await heard.wait()
            heard.clear()
            write(raw)
            await heard.wait()
            job.cancel()
            done, _ = await asyncio.wait([job], timeout=5)
            assert done


async def test_a_redis_that_falls_silent_is_noticed(
    settings: RedisSettings, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "ALIVE_SECONDS", 0.2)
    async with listening(settings, KEYS.events) as found:
        raw.client_pause(1500)
        async with asyncio.timeout(5):
            await found.failing.wait()
        raw.client_unpause()
        write(raw)
        await found.hears(KEYS.events)
