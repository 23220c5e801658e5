"""What the routes use, as ports; `connected` binds them to the real things."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.auth import Gate
from taskflow_api.settings import ApiSettings
from taskflow_core.blobs.store import ObjectStore
from taskflow_core.domain.items import ItemRow, ItemState
from taskflow_core.domain.phases import Phase
from taskflow_core.kube.client import KubeClient, Requests
from taskflow_core.settings import DatabaseSettings, StorageSettings
from taskflow_core.store import items, repository
from taskflow_core.store.engine import create_engine, transaction
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
        *,
        phase: Phase | None,
        queue: str | None,
        handler: str | None,
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

    async def check(self) -> None:
        """Fail unless it can answer."""


class Objects(Protocol):
    """The object store; synchronous."""

    def presigned_get(self, key: str, *, seconds: int, filename: str) -> str:
        """A link to fetch."""

    def presigned_put(self, key: str, *, seconds: int) -> str:
        """A link to store."""

    def check(self) -> None:
        """Fail unless it can answer."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a route may touch."""

    kube: Kube
    history: History
    objects: Objects
    gate: Gate

    def now(self) -> datetime:
        """The time by which links expire."""
        return datetime.now(UTC)


def services_of(request: Request) -> Services:
    """The services of the application that the request came to (a FastAPI dependency)."""
    services: Services = request.app.state.services
    return services


class PostgresHistory:
    """`History` on a pool of connections."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def list_tasks(self, namespace: str, **filters: Any) -> list[TaskRow]:
        """See `repository.list_tasks`."""
        async with transaction(self._engine) as connection:
            return await repository.list_tasks(connection, namespace, **filters)

    async def get_task(self, namespace: str, name: str) -> TaskRow | None:
        """See `repository.get_task`."""
        async with transaction(self._engine) as connection:
            return await repository.get_task(connection, namespace, name)

    async def get_runs(self, uid: str) -> tuple[list[AttemptRow], list[TimelineRow]]:
        """See `repository.get_attempts` and `get_timeline`."""
        async with transaction(self._engine) as connection:
            return await repository.get_attempts(connection, uid), await repository.get_timeline(connection, uid)

    async def list_items(self, uid: str, *, state: ItemState | None, after: int, limit: int) -> list[ItemRow]:
        """See `items.items_of`."""
        async with transaction(self._engine) as connection:
            return await items.items_of(connection, uid, state=state, after=after, limit=limit)

    async def check(self) -> None:
        """See `repository.check`."""
        async with transaction(self._engine) as connection:
            await repository.check(connection)


@asynccontextmanager
async def connected(api: ApiSettings, database: DatabaseSettings, storage: StorageSettings) -> AsyncIterator[Services]:
    """Services on the real API server, PostgreSQL and object store; closed at the end of the block.

    Raises:
        Invalid: there are no Kubernetes credentials, or a setting is wrong.
    """
    objects = await asyncio.to_thread(ObjectStore, storage)
    kube = await KubeClient.connect()
    engine = create_engine(database, application_name="taskflow-api", pool_size=10)
    try:
        yield Services(kube, PostgresHistory(engine), objects, Gate(kube, api.audiences, time.monotonic))
    finally:
        await engine.dispose()
        await kube.close()
