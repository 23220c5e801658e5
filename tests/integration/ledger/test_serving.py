from __future__ import annotations

import pytest
import redis

from taskflow_core.domain import naming
from taskflow_core.ledger.operator import SERVE_SECONDS
from taskflow_core.settings import RedisSettings
from tests.integration.ledger.builders import operator

pytestmark = pytest.mark.integration


async def test_one_operator_works_with_a_redis_until_it_has_been_silent(
    settings: RedisSettings, raw: redis.Redis
) -> None:
    async with operator(settings) as side:
        assert await side.ledger.serve("ns/a") == "ns/a"
        assert await side.ledger.serve("ns/b") == "ns/a"
        assert await side.ledger.serve("ns/a") == "ns/a"
        assert 0 < raw.ttl(naming.KEY_OPERATOR) <= SERVE_SECONDS
        raw.delete(naming.KEY_OPERATOR)
        assert await side.ledger.serve("ns/b") == "ns/b"


async def test_an_epoch_is_named_once(settings: RedisSettings, raw: redis.Redis) -> None:
    async with operator(settings) as side:
        assert await side.ledger.begin_epoch("e1")
        assert not await side.ledger.begin_epoch("e2")
        assert raw.get(naming.KEY_EPOCH) == "e1"
