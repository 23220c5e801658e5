from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from taskflow_core.domain.attempts import Attempt, AttemptKey
from taskflow_core.domain.event_input import read_event
from taskflow_core.domain.events import Event, EventKind, Failure, Origin, Stream, Success
from taskflow_core.domain.naming import keys_of
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.ledger.connect import connect_async, connect_sync
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.ledger.operator import OperatorLedger
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.ledger.worker import WorkerLedger
from taskflow_core.settings import RedisSettings
from taskflow_operator.tasks.snapshots import current_attempt
from tests.builders import TOKEN_KEY, UID, make_task

NAMESPACE = "team-a"
KEYS = keys_of(NAMESPACE)
WORKERS = Stream(NAMESPACE, Origin.WORKERS)
NOTES = Stream(NAMESPACE, Origin.OPERATOR)
LEASE_MS = 60_000
DONE = Success(result=3)
NOT_DONE = Failure(reason=Reason.HANDLER_ERROR, type="ValueError", message="no")


def key(attempt: int = 1, chunk: int | None = None, *, uid: str = UID, namespace: str = NAMESPACE) -> AttemptKey:
    return AttemptKey(namespace, uid, attempt, chunk)


def entry(attempt: int = 1, uid: str = UID, namespace: str = NAMESPACE) -> Attempt:
    return current_attempt(make_task(uid=uid, namespace=namespace, attempt=attempt, phase=Phase.QUEUED))


@dataclass(frozen=True)
class Operator:
    client: redis.asyncio.Redis
    namespaces: Namespaces
    ledger: OperatorLedger

    def reader(self, group: str = "cr") -> StreamReader:
        return StreamReader(self.client, group, TOKEN_KEY)

    async def expire(self, namespace: str = NAMESPACE) -> list[str]:
        """Take away what ran out, as the reconciler does; the members that are lost."""
        (found,) = await self.ledger.survey({namespace: 0}, grace_ms=0, limit=1000)
        nobodys = [(namespace, name) for name in found.nobodys]
        return [each.member for each in await self.ledger.expire(found.expired, nobodys)]


@asynccontextmanager
async def operator(settings: RedisSettings) -> AsyncIterator[Operator]:
    client = connect_async(settings)
    try:
        namespaces = Namespaces(client)
        yield Operator(client, namespaces, OperatorLedger(client, namespaces, TOKEN_KEY))
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


_connected: list[redis.Redis] = []


def worker(
    settings: RedisSettings, name: str = "pod-1:ab", lease_ms: int = LEASE_MS, namespace: str = NAMESPACE
) -> WorkerLedger:
    """A worker's ledger on a connection of its own, open until `disconnect_workers`."""
    client = connect_sync(settings)
    _connected.append(client)
    return WorkerLedger(client, namespace, name, lease_ms)


def disconnect_workers() -> None:
    while _connected:
        _connected.pop().connection_pool.disconnect()


def told(raw: redis.Redis) -> list[Event]:
    """All events of the workers' stream."""
    rows: Any = raw.xrange(KEYS.events)
    return [read_event(WORKERS, stream_id, fields, TOKEN_KEY) for stream_id, fields in rows]


def noted(raw: redis.Redis) -> list[Event]:
    """All events of the operator's stream."""
    rows: Any = raw.xrange(KEYS.notes)
    return [read_event(NOTES, stream_id, fields, TOKEN_KEY) for stream_id, fields in rows]


def kinds(raw: redis.Redis) -> list[EventKind]:
    return [event.kind for event in told(raw)]


def noted_kinds(raw: redis.Redis) -> list[EventKind]:
    return [event.kind for event in noted(raw)]


def epoch(raw: redis.Redis) -> str:
    """Names the life of the namespace's keys."""
    return str(raw.get(KEYS.epoch) or "")


def until(raw: redis.Redis, what: Callable[[], object]) -> None:
    """Wait by Redis' own clock; no more than a few seconds."""
    rows: Any = raw.time()
    deadline = rows[0] + 10
    while not what():
        rows = raw.time()
        assert rows[0] < deadline, "it did not become true in time"


def until_lost(raw: redis.Redis, member: str) -> None:
    """Wait until a lease has run out: it is good for the whole of its last millisecond."""
    lease: Any = raw.zscore(KEYS.leases, member)
    assert lease is not None
    until(raw, lambda: now_ms(raw) > lease)


def now_ms(raw: redis.Redis) -> int:
    rows: Any = raw.time()
    return int(rows[0]) * 1000 + int(rows[1]) // 1000
