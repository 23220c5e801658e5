"""What Redis lets a worker's user do, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from taskflow_core.broker import acl
from taskflow_core.broker.publish import Outgoing, Publisher
from taskflow_core.domain import naming
from taskflow_core.domain.events import EventKind
from taskflow_core.domain.message import Message
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.presence import Presence
from taskflow_core.ledger.worker import Holding
from taskflow_core.settings import RedisSettings
from tests.builders import make_message
from tests.integration.ledger.builders import DONE, entry, make_group, operator, worker
from tests.redis_users import PASSWORD, as_user, as_worker, refused

pytestmark = pytest.mark.integration
OTHERS = naming.broker_list("team-b", "default", 5)


@pytest.fixture
def own(settings: RedisSettings, raw: redis.Redis) -> RedisSettings:
    return as_worker(settings, raw, "team-a")


@pytest.fixture
def client(own: RedisSettings) -> Iterator[redis.Redis]:
    found = connect_sync(own)
    yield found
    found.connection_pool.disconnect()


async def test_the_operators_and_the_workers_users_go_through_the_protocol(
    settings: RedisSettings, own: RedisSettings, raw: redis.Redis, client: redis.Redis
) -> None:
    operators = as_user(settings, raw, acl.OPERATOR, acl.operator_rules(PASSWORD))
    message: Message = make_message()
    async with operator(operators) as its:
        await make_group(its.reader())
        await its.ledger.begin_epoch("first")
        await its.ledger.enqueue([entry()])
        publisher = Publisher(operators)
        publisher.publish([Outgoing(message, 1)])
        publisher.close()
        assert raw.llen(naming.broker_list(message.namespace, message.queue, message.priority)) == 1
        ledger = worker(own)
        claim = ledger.claim(ledger.candidate(message, 7))
        assert claim is not None
        assert ledger.heartbeat([Holding(message.member, 7)], "first").fenced == ()
        assert ledger.finish(claim, EventKind.SUCCEEDED, DONE)
        presence = Presence(client, "pod-1", "team-a", ["default"], 1)
        assert presence.report(busy=0, serving=True, claimed_ago_ms=None) is False
        presence.leave()
        await its.ledger.settle(entry())
        assert len((await its.reader().read()).events) == 4
    assert refused(raw) == []


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("ACL", "LIST"),
        ("CLIENT", "LIST"),
        ("CLIENT", "TRACKING", "ON", "BCAST"),
        ("MONITOR",),
        ("SUBSCRIBE", "x"),
        ("FUNCTION", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("BRPOP", OTHERS, "1"),
        ("LPUSH", OTHERS, "x"),
        ("LLEN", OTHERS),
        ("RPUSH", "team-ab.default", "x"),
        ("HGET", naming.unacked_keys("team-b").messages, "x"),
        ("XRANGE", KEYS.events, "-", "+"),
        ("DEL", KEYS.events),
        ("SET", naming.KEY_EPOCH, "x"),
        ("ZADD", KEYS.ledger, "1", "x:1"),
        ("ZRANGE", KEYS.ledger, "0", "-1"),
        ("HSET", KEYS.stops, "x:1", "x"),
        ("HGETALL", KEYS.workers),
        ("EVAL", "return 1", "0"),
    ],
)
def test_a_worker_is_refused_what_is_not_its_own(client: Any, command: tuple[str, ...]) -> None:
    with pytest.raises(NoPermissionError):
        client.execute_command(*command)


def test_a_script_of_a_worker_can_do_nothing_that_the_worker_may_not(client: redis.Redis) -> None:
    script = client.register_script("return redis.call('DEL', KEYS[1])")
    with pytest.raises(redis.ResponseError, match="can't access at least one of the keys"):
        script(keys=[KEYS.events])
