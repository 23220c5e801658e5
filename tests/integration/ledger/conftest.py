from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import pools
from pydantic import SecretStr

from taskflow_core.ledger.connect import connect_sync
from taskflow_core.settings import RedisSettings
from taskflow_local.stack import Stack
from tests.integration.ledger.builders import disconnect_workers


@pytest.fixture(scope="package")
def redis_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(Path(tmp_path_factory.mktemp("redis")) / "state", components=("redis",))
    try:
        stack.up(log=lambda _: None)
        yield stack
    finally:
        stack.down(log=lambda _: None)


@pytest.fixture
def settings(redis_stack: Stack) -> Iterator[RedisSettings]:
    """A Redis without any key."""
    found = RedisSettings(url=SecretStr(redis_stack.env()["TASKFLOW_REDIS_URL"]))
    client = connect_sync(found)
    client.flushall()
    client.connection_pool.disconnect()
    yield found
    disconnect_workers()
    # kombu keeps its pools for the whole process, by URL.
    pools.reset()


@pytest.fixture
def raw(settings: RedisSettings) -> Iterator[redis.Redis]:
    """The keys themselves, to see what a script did and to do to Redis what accidents do."""
    client = connect_sync(settings)
    yield client
    client.connection_pool.disconnect()
