from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from taskflow_core.broker.publish import Outgoing, Publisher
from taskflow_core.domain import naming
from taskflow_core.domain.attempts import Entry
from taskflow_core.domain.events import EntryId, EventKind
from taskflow_core.domain.message import Message
from taskflow_core.errors import Unavailable
from taskflow_core.ledger import stream
from taskflow_core.settings import RedisSettings
from taskflow_local.stack import Stack
from tests.builders import make_message
from tests.integration.ledger.builders import DONE, NAMESPACE, WORKERS, entry, key, kinds, noted_kinds, operator, worker

pytestmark = pytest.mark.integration
SECONDS = 8
"""Connecting and reading are bounded by 5 s each; a refused connection takes no time at all."""


@pytest.fixture
def outage(redis_stack: Stack) -> Any:
    """Stop Redis; whatever happens, it runs again afterwards."""
    yield lambda: redis_stack.stop("redis")
    redis_stack.start("redis")


def quick(action: Callable[[], object]) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="Redis"):
        action()
    assert time.monotonic() - started < SECONDS


async def test_a_stopped_redis_is_unavailable_and_comes_back(
    settings: RedisSettings, redis_stack: Stack, outage: Callable[[], None]
) -> None:
    ledger = worker(settings)
    message = make_message()
    async with operator(settings) as side:
        await side.ledger.enqueue([entry()])
        claim = ledger.claim(ledger.candidate(message, 1))
        assert claim is not None
        reader = side.reader()
        outage()
        quick(lambda: ledger.claim(ledger.candidate(message, 1)))
        quick(lambda: ledger.heartbeat([], ""))
        quick(lambda: ledger.finish(claim, EventKind.SUCCEEDED, DONE))
        for call in (
            partial(side.ledger.begin_epoch, "e"),
            partial(side.ledger.survey, {NAMESPACE: 0}, grace_ms=0, limit=1),
            partial(side.ledger.expire, [key()]),
            side.ledger.now_ms,
            side.namespaces.load,
            partial(side.namespaces.ensure, ["new"]),
            partial(side.namespaces.reset, NAMESPACE),
            partial(reader.read, [WORKERS]),
            partial(reader.look, [NAMESPACE], 0),
            partial(reader.acknowledge, [EntryId(WORKERS, "1-1")]),
            partial(stream.trim_read, side.client, [WORKERS], 0),
        ):
            started = time.monotonic()
            with pytest.raises(Unavailable, match="Redis"):
                await call()
            assert time.monotonic() - started < SECONDS
        redis_stack.start("redis")
        assert isinstance(ledger.heartbeat([], "").epoch, str)
        (answer,) = await side.ledger.enqueue([entry(attempt=2)])
        assert answer.entry is Entry.NEW


def test_a_connection_that_was_closed_under_us_is_opened_again(settings: RedisSettings, raw: redis.Redis) -> None:
    ledger = worker(settings)
    ledger.heartbeat([], "")
    raw.client_kill_filter(_type="normal", skipme=True)
    ledger.heartbeat([], "")


@pytest.fixture
def full(raw: redis.Redis) -> Iterator[Callable[[], None]]:
    """Fill Redis' memory; whatever happens, there is room again afterwards."""

    def fill() -> None:
        raw.config_set("maxmemory", "1")

    yield fill
    raw.config_set("maxmemory", "0")


async def test_a_redis_without_memory_is_unavailable_and_takes_nothing_in_halves(
    settings: RedisSettings, raw: redis.Redis, full: Callable[[], None]
) -> None:
    async with operator(settings) as side:
        full()
        with pytest.raises(Unavailable, match=r"OOM|memory"):
            await side.ledger.enqueue([entry()])
        assert list(raw.scan_iter()) == []


async def test_what_is_in_flight_goes_on_without_memory(
    settings: RedisSettings, raw: redis.Redis, full: Callable[[], None]
) -> None:
    # These scripts begin by removing something, and Redis lets a script that has written go on to its end.
    ledger = worker(settings)
    async with operator(settings) as side:
        await side.ledger.enqueue([entry(1), entry(2)])
        full()
        claim = ledger.claim(ledger.candidate(make_message(attempt=1), 1))
        assert claim is not None
        await side.ledger.settle(entry(1))
    assert kinds(raw)[-1] is EventKind.STARTED
    assert noted_kinds(raw)[-1] is EventKind.SETTLED


def outgoing(message: Message) -> list[Outgoing]:
    return [Outgoing(message, 5)]


def test_a_publisher_says_that_redis_is_away(settings: RedisSettings, outage: Callable[[], None]) -> None:
    publisher = Publisher(settings)
    outage()
    with pytest.raises(Unavailable, match="broker"):
        publisher.publish(outgoing(make_message()))
    publisher.close()


def test_a_publisher_goes_on_after_an_outage(
    settings: RedisSettings, redis_stack: Stack, outage: Callable[[], None]
) -> None:
    publisher = Publisher(settings)
    outage()
    for _ in range(2):
        with pytest.raises(Unavailable, match="broker"):
            publisher.publish(outgoing(make_message()))
    redis_stack.start("redis")
    publisher.publish(outgoing(make_message()))
    publisher.close()


async def test_a_full_redis_is_away_even_though_its_epoch_is_there(settings: RedisSettings, raw: redis.Redis) -> None:
    raw.set(naming.KEY_EPOCH, "e1")
    raw.config_set("maxmemory", 1)
    try:
        async with operator(settings) as side:
            with pytest.raises(Unavailable, match="maxmemory"):
                await side.ledger.begin_epoch("e2")
    finally:
        raw.config_set("maxmemory", 0)
