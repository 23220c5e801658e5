"""What the routes use, as ports; `connected` binds them to the real things."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.auth import Gate
from taskflow_api.cache import MarkedWrites, ReadCache
from taskflow_api.identity.wiring import Identity, identity
from taskflow_api.limits.limiter import ANSWER_SECONDS, Limiter, RedisCounter
from taskflow_api.live.hub import MAX_CHANNELS, Hub
from taskflow_api.settings import ApiSettings, LimitSettings, OidcSettings, RegisterSettings, WebhookSettings
from taskflow_api.webhooks.office import Webhooks, webhooks
from taskflow_core.blobs.multipart import MultipartUploads
from taskflow_core.blobs.store import ObjectInfo, ObjectStore
from taskflow_core.domain.items import ItemRow, ItemState
from taskflow_core.kube.client import KubeClient, Requests
from taskflow_core.ledger.cache_versions import CacheVersions
from taskflow_core.ledger.connect import connect_async
from taskflow_core.ledger.pipelining import PipelinedClient
from taskflow_core.ledger.queue_view import Place, QueueView
from taskflow_core.settings import CacheSettings, DatabaseSettings, RedisSettings, StorageSettings
from taskflow_core.store import items, operations, repository
from taskflow_core.store.engine import create_engine, transaction
from taskflow_core.store.operations import OperationRow
from taskflow_core.store.repository import Filter
from taskflow_core.store.rows import AttemptRow, TaskRow, TimelineRow


class Kube(Requests, Protocol):
    """The API server."""

    def watch(self, path: str, version: str, field_selector: str = "") -> AsyncIterator[Sequence[dict[str, Any]]]:
        """What happens after that version; see `KubeClient.watch`."""


class History(Protocol):
    """What PostgreSQL knows. All raise Unavailable."""

    async def list_tasks(
        self,
        namespace: str,
        wanted: Filter,
        *,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[TaskRow]:
        """A page, newest first."""

    async def get_task(self, namespace: str, name: str) -> TaskRow | None:
        """The newest of that name."""

    async def get_runs(self, uid: str) -> tuple[list[AttemptRow], list[TimelineRow]]:
        """Attempts and timeline of a Task."""

    async def list_items(self, uid: str, *, state: ItemState | None, after: int, limit: int) -> list[ItemRow]:
        """Items of an array that have ended, by their indices."""

    async def latest_starts(self, namespace: str, queue: str, *, since: datetime, limit: int) -> list[datetime]:
        """When Tasks of a queue started lately, newest first."""

    async def start_operation(self, row: OperationRow) -> bool:
        """See `operations.start`."""

    async def get_operation(self, namespace: str, id_: str) -> OperationRow | None:
        """See `operations.get`."""

    async def list_operations(
        self, namespace: str, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[OperationRow]:
        """See `operations.page`."""

    async def remove_operation(self, namespace: str, id_: str) -> bool:
        """See `operations.remove`."""

    async def take(self, holder: str) -> OperationRow | None:
        """See `operations.take`."""

    async def save(self, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
        """See `operations.save`."""

    async def check(self) -> None:
        """Fail unless it can answer."""


class Queues(Protocol):
    """What stands in the broker's queues; only to be shown."""

    async def place(self, namespace: str, queue: str, priority: int, uid: str, attempt: int) -> Place | None:
        """See `QueueView.place`."""


class Objects(Protocol):
    """The object store; synchronous."""

    def presigned_get(self, key: str, *, seconds: int, filename: str) -> str:
        """A link to fetch."""

    def presigned_put(self, key: str, *, seconds: int) -> str:
        """A link to store."""

    def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> list[ObjectInfo]:
        """See `ObjectStore.list`."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `ObjectStore.get_range`."""

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`."""

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""

    def multipart(self) -> MultipartUploads:
        """Uploads in parts."""

    def check(self) -> None:
        """Fail unless it can answer."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may touch."""

    kube: Kube
    history: History
    objects: Objects
    gate: Gate
    identity: Identity
    hub: Hub
    limiter: Limiter
    queues: Queues | None = None
    """None: this installation gives the API no access to the broker."""
    webhooks: Webhooks | None = None
    """None: they are off."""
    cache: ReadCache = field(default_factory=lambda: ReadCache(None))

    def now(self) -> datetime:
        """The time by which links expire."""
        return datetime.now(UTC)


def services_of(request: Request) -> Services:
    """The services of the application that the request came to."""
    services: Services = request.app.state.services
    return services


class PostgresHistory:
    """`History` on a pool of connections."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # What only reads needs no transaction, and so no round trips for one.
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def list_tasks(
        self, namespace: str, wanted: Filter, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[TaskRow]:
        """See `repository.list_tasks`."""
        async with transaction(self._reading) as connection:
            return await repository.list_tasks(connection, namespace, wanted, after=after, limit=limit)

    async def get_task(self, namespace: str, name: str) -> TaskRow | None:
        """See `repository.get_task`."""
        async with transaction(self._reading) as connection:
            return await repository.get_task(connection, namespace, name)

    async def get_runs(self, uid: str) -> tuple[list[AttemptRow], list[TimelineRow]]:
        """See `repository.get_attempts` and `get_timeline`."""
        async with transaction(self._reading) as connection:
            return await repository.get_attempts(connection, uid), await repository.get_timeline(connection, uid)

    async def list_items(self, uid: str, *, state: ItemState | None, after: int, limit: int) -> list[ItemRow]:
        """See `items.items_of`."""
        async with transaction(self._reading) as connection:
            return await items.items_of(connection, uid, state=state, after=after, limit=limit)

    async def latest_starts(self, namespace: str, queue: str, *, since: datetime, limit: int) -> list[datetime]:
        """See `repository.latest_starts`."""
        async with transaction(self._reading) as connection:
            return await repository.latest_starts(connection, namespace, queue, since=since, limit=limit)

    async def start_operation(self, row: OperationRow) -> bool:
        """See `operations.start`."""
        async with transaction(self._engine) as connection:
            return await operations.start(connection, row)

    async def get_operation(self, namespace: str, id_: str) -> OperationRow | None:
        """See `operations.get`."""
        async with transaction(self._reading) as connection:
            return await operations.get(connection, namespace, id_)

    async def list_operations(
        self, namespace: str, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[OperationRow]:
        """See `operations.page`."""
        async with transaction(self._reading) as connection:
            return await operations.page(connection, namespace, after=after, limit=limit)

    async def remove_operation(self, namespace: str, id_: str) -> bool:
        """See `operations.remove`."""
        async with transaction(self._engine) as connection:
            return await operations.remove(connection, namespace, id_)

    async def take(self, holder: str) -> OperationRow | None:
        """See `operations.take`."""
        async with transaction(self._engine) as connection:
            return await operations.take(connection, holder)

    async def save(self, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
        """See `operations.save`."""
        async with transaction(self._engine) as connection:
            return await operations.save(connection, row, holder, keep=keep)

    async def check(self) -> None:
        """See `repository.check`."""
        async with transaction(self._reading) as connection:
            await repository.check(connection)


@asynccontextmanager
async def connected(
    api: ApiSettings,
    oidc: OidcSettings,
    register: RegisterSettings,
    limits: LimitSettings,
    caching: CacheSettings,
    database: DatabaseSettings,
    storage: StorageSettings,
    notifying: WebhookSettings,
) -> AsyncIterator[Services]:
    """Services on the real API server, PostgreSQL and object store; closed at the end of the block.

    Raises:
        Invalid: there are no Kubernetes credentials, or a setting is wrong.
    """
    objects = await asyncio.to_thread(ObjectStore, storage)
    kube = await KubeClient.connect()
    # Each watch holds a connection for as long as somebody listens.
    watches = await KubeClient.connect(connections=MAX_CHANNELS + 8)
    hub = Hub(watches, api.streams_per_caller, api.streams)
    broker, counting, kept = (
        connect_async(RedisSettings(url=url)) if url is not None else None
        for url in (api.broker_url, limits.url, caching.url)
    )
    engine = create_engine(database, application_name="taskflow-api", pool_size=10)
    gate = Gate(kube, api.audiences, time.monotonic)
    try:
        asked, looked = (
            PipelinedClient(each, ANSWER_SECONDS) if each is not None else None for each in (counting, kept)
        )
        counter = RedisCounter(asked) if asked is not None else None
        if asked is not None and caching.url == limits.url:
            # A request's look into the cache goes with its count.
            looked = asked
        async with identity(kube, engine, gate, oidc, register, counter) as who:
            queues = QueueView(broker) if broker is not None else None
            limiter = Limiter(
                counter,
                caller_per_minute=limits.caller_per_minute,
                namespace_per_minute=limits.namespace_per_minute,
                namespaces=limits.namespaces,
                key_per_minute=limits.key_per_minute,
                keys=limits.keys,
            )
            hooks = webhooks(engine, notifying)
            writes = MarkedWrites(kube, CacheVersions(kept))
            history = PostgresHistory(engine)
            yield Services(writes, history, objects, gate, who, hub, limiter, queues, hooks, ReadCache(looked))
    finally:
        await hub.stop()
        await watches.close()
        for each in (broker, counting, kept):
            if each is not None:
                await each.aclose()
        await engine.dispose()
        await kube.close()
