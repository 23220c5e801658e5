from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from taskflow_core.ledger.connect import connect_sync
from taskflow_core.settings import RedisSettings
from taskflow_local.stack import Stack
from tests.integration.taskflow_worker.process import Workers
from tests.redis_users import as_worker, refused


@pytest.fixture(scope="package")
def redis_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(Path(tmp_path_factory.mktemp("redis")) / "state", components=("redis",))
    try:
        stack.up(log=lambda _: None)
        yield stack
    finally:
        stack.down(log=lambda _: None)


@pytest.fixture(scope="package")
def minio() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="taskflow-") as folder:
        stack = Stack(Path(folder) / "state", components=("minio",))
        try:
            stack.up(log=lambda _: None)
            yield stack
        finally:
            stack.down(log=lambda _: None)


@pytest.fixture
def workers(redis_stack: Stack, tmp_path: Path) -> Iterator[Workers]:
    """Workers as processes on an empty Redis, with the Redis user of their namespace."""
    settings = RedisSettings(url=SecretStr(redis_stack.env()["TASKFLOW_REDIS_URL"]))
    raw = connect_sync(settings)
    raw.flushall()
    made = Workers(settings, as_worker(settings, raw, "team-a"), raw, tmp_path)
    try:
        yield made
    finally:
        made.end_all()
        assert refused(raw) == []
        raw.connection_pool.disconnect()
