from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kombu import pools
from pydantic import SecretStr

from taskflow_core.ledger.connect import connect_sync
from taskflow_core.settings import DatabaseSettings, RedisSettings
from taskflow_local.stack import Stack
from taskflow_operator.arrays import driver, history_wait
from taskflow_operator.runtime import dependency_health
from tests.integration.arrays.site import Site


@pytest.fixture(scope="package")
def redis_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(Path(tmp_path_factory.mktemp("redis")) / "state", components=("redis",))
    try:
        stack.up(log=lambda _: None)
        yield stack
    finally:
        stack.down(log=lambda _: None)


@pytest.fixture
async def site(redis_stack: Stack, migrated: DatabaseSettings) -> AsyncIterator[Site]:
    """Redis and a database, both of them empty, and an operator's part for arrays."""
    settings = RedisSettings(url=SecretStr(redis_stack.env()["TASKFLOW_REDIS_URL"]))
    client = connect_sync(settings)
    client.flushall()
    client.connection_pool.disconnect()
    made = Site(settings, migrated)
    yield made
    await made.close()
    pools.reset()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependency_health, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(history_wait, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(driver, "STOCK_SECONDS", 0.5)
