"""Endpoints in PostgreSQL. All methods raise Unavailable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from taskflow_api.webhooks.tables import deliveries, webhooks
from taskflow_core.errors import Conflict
from taskflow_core.store.engine import transaction

MAX_ENDPOINTS = 50
"""The limit for a namespace, so that lists need no pages."""
PENDING, DELIVERED, FAILED = "Pending", "Delivered", "Failed"


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """An endpoint: the columns of `webhooks`."""

    id: str
    namespace: str
    name: str
    url: str
    types: list[str]
    every_task: bool
    """False if only Tasks that name the endpoint in `spec.notify` are reported."""
    secret: bytes
    created_at: datetime
    created_by: str
    old_secret: bytes | None = None
    """Also signs, until `old_secret_until`."""
    old_secret_until: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str = ""


class Endpoints(Protocol):
    """The store of endpoints."""

    async def add(self, row: EndpointRow) -> None:
        """Add an endpoint. Raises Conflict if the name is taken or the namespace has reached the limit."""

    async def get(self, namespace: str, name: str) -> EndpointRow | None:
        """The endpoint of that name."""

    async def of_namespace(self, namespace: str) -> list[EndpointRow]:
        """The endpoints of a namespace, by name."""

    async def change(self, endpoint_id: str, values: Mapping[str, Any]) -> EndpointRow | None:
        """Change an endpoint and return it. Disabling it fails its pending deliveries."""

    async def delete(self, endpoint_id: str) -> bool:
        """Delete an endpoint with its deliveries; whether it existed."""


class PostgresEndpoints:
    """`Endpoints` on a connection pool."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, row: EndpointRow) -> None:
        """See `Endpoints`."""
        ours = select(func.count()).select_from(webhooks).where(webhooks.c.namespace == row.namespace)
        new = insert(webhooks).values(asdict(row))
        unless_there = new.on_conflict_do_nothing(index_elements=[webhooks.c.namespace, webhooks.c.name])
        async with transaction(self._engine) as connection:
            # Without the lock, two concurrent requests could both pass the limit.
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"webhooks {row.namespace}"}
            )
            if (count := (await connection.execute(ours)).scalar_one()) >= MAX_ENDPOINTS:
                raise Conflict(f"namespace {row.namespace} already has {count} webhooks, the limit; delete some")
            if (await connection.execute(unless_there.returning(webhooks.c.id))).first() is None:
                raise Conflict(f"webhook {row.name} already exists in namespace {row.namespace}")

    async def get(self, namespace: str, name: str) -> EndpointRow | None:
        """See `Endpoints`."""
        query = select(webhooks).where(webhooks.c.namespace == namespace, webhooks.c.name == name)
        async with transaction(self._engine) as connection:
            found = (await connection.execute(query)).mappings().first()
        return None if found is None else EndpointRow(**found)

    async def of_namespace(self, namespace: str) -> list[EndpointRow]:
        """See `Endpoints`."""
        query = select(webhooks).where(webhooks.c.namespace == namespace).order_by(webhooks.c.name)
        async with transaction(self._engine) as connection:
            return [EndpointRow(**row) for row in (await connection.execute(query)).mappings()]

    async def change(self, endpoint_id: str, values: Mapping[str, Any]) -> EndpointRow | None:
        """See `Endpoints`."""
        async with transaction(self._engine) as connection:
            return await change(connection, endpoint_id, values)

    async def delete(self, endpoint_id: str) -> bool:
        """See `Endpoints`."""
        async with transaction(self._engine) as connection:
            gone = delete(webhooks).where(webhooks.c.id == endpoint_id).returning(webhooks.c.id)
            there = (await connection.execute(gone)).first() is not None
            await connection.execute(delete(deliveries).where(deliveries.c.webhook_id == endpoint_id))
        return there


async def change(connection: AsyncConnection, endpoint_id: str, values: Mapping[str, Any]) -> EndpointRow | None:
    """See `Endpoints.change`."""
    statement = update(webhooks).where(webhooks.c.id == endpoint_id).values(**values).returning(webhooks)
    found = (await connection.execute(statement)).mappings().first()
    if found is not None and values.get("disabled_at") is not None:
        waiting = (deliveries.c.webhook_id == endpoint_id) & (deliveries.c.state == PENDING)
        ended = {"state": FAILED, "finished_at": func.now(), "next_at": None, "lease": None, "leased_until": None}
        await connection.execute(update(deliveries).where(waiting).values(ended))
    return None if found is None else EndpointRow(**found)
