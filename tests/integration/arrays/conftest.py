from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kombu import pools
from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine, text

from taskflow_core.ledger.connect import connect_sync
from taskflow_core.settings import DatabaseSettings, RedisSettings
from taskflow_core.store.migrate import migrate
from taskflow_local.stack import Stack
from tests.integration.arrays.site import Site


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """Redis and PostgreSQL."""
    # Not pytest's own folder, which PostgreSQL's user may not pass when the tests run as root.
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        Path(folder).chmod(0o711)
        made = Stack(Path(folder) / "state", components=("postgres", "redis"))
        try:
            made.up(log=lambda _: None)
            yield made
        finally:
            made.down(log=lambda _: None)


@pytest.fixture
async def site(stack: Stack) -> AsyncIterator[Site]:
    """Both of them empty, and an operator's part for arrays."""
    database = DatabaseSettings(url=SecretStr(stack.env()["TASKFLOW_DATABASE_URL"]))
    with create_engine(database.url.get_secret_value(), poolclass=NullPool).begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    migrate(create_engine(database.url.get_secret_value(), poolclass=NullPool))
    redis_settings = RedisSettings(url=SecretStr(stack.env()["TASKFLOW_REDIS_URL"]))
    client = connect_sync(redis_settings)
    client.flushall()
    client.connection_pool.disconnect()
    made = Site(redis_settings, database)
    yield made
    await made.close()
    pools.reset()
