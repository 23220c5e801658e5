from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import Attempt
from taskflow_core.domain.events import Event, EventKind, Failure, Success
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.ledger.connect import connect_async, connect_sync
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.ledger.worker import WorkerLedger
from taskflow_core.settings import RedisSettings
from taskflow_operator.tasks.snapshots import current_attempt
from tests.builders import UID, make_task

LEASE_MS = 60_000
DONE = Success(result=3)
NOT_DONE = Failure(reason=Reason.HANDLER_ERROR, type="ValueError", message="no")


def entry(attempt: int = 1, uid: str = UID) -> Attempt:
    return current_attempt(make_task(uid=uid, attempt=attempt, phase=Phase.QUEUED))


@dataclass(frozen=True)
class Operator:
    client: redis.asyncio.Redis
    ledger: OperatorLedger

    def reader(self, group: str = "cr") -> StreamReader:
        return StreamReader(self.client, group)


@asynccontextmanager
async def operator(settings: RedisSettings) -> AsyncIterator[Operator]:
    client = connect_async(settings)
    try:
        yield Operator(client, OperatorLedger(client))
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


_connected: list[redis.Redis] = []


def worker(settings: RedisSettings, name: str = "pod-1:ab", lease_ms: int = LEASE_MS) -> WorkerLedger:
    """A worker's ledger on a connection of its own, open until `disconnect_workers`."""
    client = connect_sync(settings)
    _connected.append(client)
    return WorkerLedger(client, name, lease_ms)


def disconnect_workers() -> None:
    while _connected:
        _connected.pop().connection_pool.disconnect()


def told(raw: redis.Redis) -> list[Event]:
    """All events of the stream."""
    rows: Any = raw.xrange(naming.KEY_STREAM)
    return [Event.from_fields(stream_id, fields) for stream_id, fields in rows]


def kinds(raw: redis.Redis) -> list[EventKind]:
    return [event.kind for event in told(raw)]


def until(raw: redis.Redis, what: Callable[[], object]) -> None:
    """Wait by Redis' own clock; no more than a few seconds."""
    rows: Any = raw.time()
    deadline = rows[0] + 10
    while not what():
        rows = raw.time()
        assert rows[0] < deadline, "it did not become true in time"


def until_lost(raw: redis.Redis, member: str) -> None:
    """Wait until a lease has run out: it is good for the whole of its last millisecond."""
    lease: Any = raw.zscore(naming.KEY_LEASES, member)
    assert lease is not None
    until(raw, lambda: now_ms(raw) > lease)


def now_ms(raw: redis.Redis) -> int:
    rows: Any = raw.time()
    return int(rows[0]) * 1000 + int(rows[1]) // 1000


async def make_group(reader: StreamReader) -> bool:
    """The group, as whoever has mirrored everything makes it."""
    return await reader.make_group(await reader.mark())
