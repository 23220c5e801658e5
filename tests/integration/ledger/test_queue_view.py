"""Where attempts stand, on a real Redis with the messages that the operator publishes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis
from redis.exceptions import NoPermissionError

from taskflow_core.broker import acl
from taskflow_core.broker.publish import Outgoing, Publisher
from taskflow_core.domain import naming
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_async, connect_sync
from taskflow_core.ledger.queue_view import QueuePosition, QueueView
from taskflow_core.settings import RedisSettings
from tests.builders import make_message
from tests.integration.ledger.builders import KEYS
from tests.redis_users import PASSWORD, as_user

pytestmark = pytest.mark.integration


@pytest.fixture
def readers(settings: RedisSettings, raw: redis.Redis) -> RedisSettings:
    return as_user(settings, raw, acl.API, acl.api_rules(PASSWORD))


@pytest.fixture
async def view(readers: RedisSettings) -> AsyncIterator[QueueView]:
    client = connect_async(readers)
    yield QueueView(client)
    await client.aclose()


def publish(settings: RedisSettings, raw: redis.Redis, *entries: tuple[str, int, int]) -> None:
    """(uid, priority, when it was entered)."""
    publisher = Publisher(settings)
    publisher.publish(
        [Outgoing(make_message(uid=uid, priority=priority), entered) for uid, priority, entered in entries]
    )
    publisher.close()
    raw.zadd(KEYS.ledger, {naming.member(uid, 1): entered for uid, _, entered in entries})


async def test_a_place_counts_higher_priorities_and_the_older_of_its_own(
    settings: RedisSettings, raw: redis.Redis, view: QueueView
) -> None:
    # Three in one millisecond, and one that was published again behind those that are younger.
    entered = [100, 200, 300, 300, 300, 400, 150, 500]
    publish(settings, raw, *((f"low-{number}", 0, when) for number, when in enumerate(entered)))
    publish(settings, raw, ("high-0", 9, 900), ("high-1", 9, 901), ("middle", 5, 950))
    for number in (0, 1, 2, 3, 4, 5, 7):
        assert await view.position("team-a", "default", 0, f"low-{number}", 1) == QueuePosition(3 + number, exact=True)
    assert await view.position("team-a", "default", 0, "low-6", 1) == QueuePosition(9, exact=True)
    assert await view.position("team-a", "default", 9, "high-1", 1) == QueuePosition(1, exact=True)
    assert await view.position("team-a", "default", 5, "middle", 1) == QueuePosition(2, exact=True)


async def test_what_is_not_in_the_ledger_has_no_place_and_what_was_fetched_has_one_by_its_age(
    settings: RedisSettings, raw: redis.Redis, view: QueueView
) -> None:
    publish(settings, raw, ("a", 0, 100), ("b", 0, 200))
    assert await view.position("team-a", "default", 0, "c", 1) is None
    raw.rpop(naming.broker_list("team-a", "default", 0))
    assert await view.position("team-a", "default", 0, "a", 1) == QueuePosition(0, exact=False)
    assert await view.position("team-a", "default", 0, "b", 1) == QueuePosition(0, exact=True)


async def test_at_a_hundred_thousand_messages_few_are_looked_at(
    settings: RedisSettings, raw: redis.Redis, view: QueueView
) -> None:
    publish(settings, raw, ("first", 0, 1))
    name = naming.broker_list("team-a", "default", 0)
    message = str(raw.lindex(name, 0))
    pipe = raw.pipeline(transaction=False)
    for number in range(2, 100_001):
        pipe.lpush(
            name, message.replace("first:1", f"uid-{number}:1").replace('_entered_ms": 1', f'_entered_ms": {number}')
        )
        if number % 5000 == 0:
            pipe.execute()
    pipe.execute()
    raw.zadd(KEYS.ledger, {naming.member("uid-77777", 1): 77_777})
    raw.config_resetstat()
    began = time.perf_counter()
    assert await view.position("team-a", "default", 0, "uid-77777", 1) == QueuePosition(77_776, exact=True)
    took = time.perf_counter() - began
    calls = {command: stats["calls"] for command, stats in raw.info("commandstats").items()}
    # Each is one message; the last is what is around the place.
    assert calls["cmdstat_evalsha_ro"] == calls["cmdstat_lrange"] <= 19
    assert took < 1


async def test_the_apis_user_reads_no_more_than_that(readers: RedisSettings, raw: redis.Redis) -> None:
    raw.set(KEYS.claim("u", 1), "x")
    client = connect_sync(readers)
    queue = naming.broker_list("team-a", "default", 0)
    for command in (
        ("LPUSH", queue, "x"),
        ("RPOP", queue),
        ("DEL", queue),
        ("GET", KEYS.claim("u", 1)),
        ("ZADD", KEYS.ledger, "1", "x"),
        ("ZRANGE", KEYS.ledger, "0", "-1"),
        ("XRANGE", KEYS.events, "-", "+"),
        ("XRANGE", KEYS.notes, "-", "+"),
        ("SET", KEYS.epoch, "x"),
        ("GET", KEYS.epoch),
        ("GET", naming.KEY_EPOCH),
        ("SMEMBERS", naming.KEY_NAMESPACES),
        ("EVALSHA", "0" * 40, "1", queue),
        ("EVALSHA_RO", "0" * 40, "1", KEYS.events),
        ("CLIENT", "TRACKING", "ON"),
        ("HGETALL", KEYS.workers),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("EVAL", "return 1", "0"),
        ("PUBLISH", "x", "y"),
    ):
        with pytest.raises(NoPermissionError):
            client.execute_command(*command)  # type: ignore[no-untyped-call]
    client.connection_pool.disconnect()


async def test_messages_that_are_none_of_ours_take_no_memory_and_hide_no_other(
    settings: RedisSettings, raw: redis.Redis, view: QueueView
) -> None:
    publish(settings, raw, ("a", 0, 100), ("b", 0, 200))
    name = naming.broker_list("team-a", "default", 0)
    for junk in (b"x" * 8_000_000, b"\xff\xfe", b"[" * 10_000, b"{}", b"", b'{"headers": []}'):
        raw.rpush(name, junk)
    raw.lpush(name, b"y" * 8_000_000)
    assert await view.position("team-a", "default", 0, "a", 1) == QueuePosition(6, exact=True)
    assert await view.position("team-a", "default", 0, "b", 1) == QueuePosition(7, exact=True)


async def test_two_namespaces_have_queues_and_ledgers_of_their_own(
    settings: RedisSettings, raw: redis.Redis, view: QueueView
) -> None:
    publish(settings, raw, ("a", 0, 100))
    assert await view.position("team-a", "default", 0, "a", 1) == QueuePosition(0, exact=True)
    assert await view.position("team-b", "default", 0, "a", 1) is None


async def test_without_redis_it_says_so(settings: RedisSettings) -> None:
    client = connect_async(RedisSettings.model_validate({"url": "redis://127.0.0.1:1/0"}))
    with pytest.raises(Unavailable):
        await QueueView(client).position("team-a", "default", 0, "u", 1)
    await client.aclose()
