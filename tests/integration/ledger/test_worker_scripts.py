"""Which scripts a worker's login can run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from taskflow_core.broker import acl
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.connect import connect_sync
from taskflow_core.ledger.presence import Presence
from taskflow_core.settings import RedisSettings
from tests.builders import make_message
from tests.integration.ledger.builders import KEYS, NAMESPACE, operator, worker
from tests.redis_users import PASSWORD, as_user, as_worker, refused

pytestmark = pytest.mark.integration


@pytest.fixture
def own(settings: RedisSettings, raw: redis.Redis) -> RedisSettings:
    return as_worker(settings, raw, NAMESPACE)


@pytest.fixture
def client(own: RedisSettings) -> Iterator[redis.Redis]:
    found = connect_sync(own)
    yield found
    found.connection_pool.disconnect()


async def test_a_worker_runs_the_scripts_that_the_operator_loads_and_loads_none(
    settings: RedisSettings, own: RedisSettings, raw: redis.Redis, client: redis.Redis
) -> None:
    raw.script_flush()
    ledger = worker(own)
    with pytest.raises(Unavailable, match=r"script\|load"):
        ledger.heartbeat([], "")
    operators = as_user(settings, raw, acl.OPERATOR, acl.operator_rules(PASSWORD))
    async with operator(operators) as its:
        for _ in range(2):
            await its.ledger.serve("ns/a")
    ledger.heartbeat([], "")
    assert ledger.claim(ledger.candidate(make_message(), 7)) is None
    lock = client.lock(KEYS.unacked.mutex, timeout=10)
    assert lock.acquire(blocking=False)
    lock.release()
    assert not Presence(client, "pod-1", NAMESPACE, ["default"], 1).report(busy=0, serving=True, claimed_ago_ms=None)
    assert refused(raw) == []


def test_a_script_of_a_worker_can_do_nothing_that_the_worker_may_not(client: redis.Redis, raw: redis.Redis) -> None:
    source = "return redis.call('DEL', KEYS[1])"
    raw.script_load(source)
    script = client.register_script(source)
    with pytest.raises(redis.ResponseError, match="can't access at least one of the keys"):
        script(keys=[KEYS.events])
