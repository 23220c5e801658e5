"""API keys in PostgreSQL. All methods raise Unavailable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.identity.tables import api_keys
from taskflow_core.errors import Conflict
from taskflow_core.store.engine import transaction

MAX_KEYS = 500
"""The limit for a namespace, so that lists need no pages."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key: the columns of `api_keys`."""

    id: str
    namespace: str
    service_account: str
    service_account_uid: str
    name: str
    scopes: list[str]
    digest: bytes
    created_at: datetime
    created_by: str
    """The user name of the creator."""
    expires_at: datetime
    last_used_at: datetime | None = None
    """Updated once a minute."""
    replaced_by: str | None = None
    """The id of the key that replaced it."""


class KeyStore(Protocol):
    """The store of keys."""

    async def add(self, row: KeyRow, *, delete_expired_before: datetime) -> None:
        """Add a key, and delete old expired ones. Raises Conflict if the namespace has reached the limit."""

    async def get(self, key_id: str) -> KeyRow | None:
        """A key by id."""

    async def of_namespace(self, namespace: str, service_account: str | None = None) -> list[KeyRow]:
        """The keys of a namespace or of one ServiceAccount, oldest first."""

    async def rotate(self, old_id: str, new: KeyRow, *, old_expires_at: datetime) -> None:
        """Replace a key. Raises Conflict if the old one was deleted or already rotated."""

    async def delete(self, key_id: str) -> bool:
        """Delete a key; whether it existed."""

    async def record_use(self, used: Mapping[str, datetime]) -> None:
        """Store the time of the last use of each key."""


class PostgresKeys:
    """`KeyStore` on a connection pool."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, row: KeyRow, *, delete_expired_before: datetime) -> None:
        """See `KeyStore`."""
        ours = api_keys.c.namespace == row.namespace
        async with transaction(self._engine) as connection:
            await connection.execute(delete(api_keys).where(ours, api_keys.c.expires_at < delete_expired_before))
            count = (await connection.execute(select(func.count()).select_from(api_keys).where(ours))).scalar_one()
            if count >= MAX_KEYS:
                raise Conflict(f"namespace {row.namespace} already has {count} API keys, the limit; revoke some")
            await connection.execute(insert(api_keys).values(asdict(row)))

    async def get(self, key_id: str) -> KeyRow | None:
        """See `KeyStore`."""
        async with transaction(self._engine) as connection:
            found = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).mappings().first()
        return None if found is None else KeyRow(**found)

    async def of_namespace(self, namespace: str, service_account: str | None = None) -> list[KeyRow]:
        """See `KeyStore`."""
        query = select(api_keys).where(api_keys.c.namespace == namespace)
        if service_account is not None:
            query = query.where(api_keys.c.service_account == service_account)
        async with transaction(self._engine) as connection:
            found = await connection.execute(query.order_by(api_keys.c.created_at, api_keys.c.id))
            return [KeyRow(**row) for row in found.mappings()]

    async def rotate(self, old_id: str, new: KeyRow, *, old_expires_at: datetime) -> None:
        """See `KeyStore`."""
        unrotated = (api_keys.c.id == old_id) & api_keys.c.replaced_by.is_(None)
        ends = func.least(api_keys.c.expires_at, old_expires_at)
        # The row lock makes a concurrent rotation wait, and then find the key already rotated.
        marked = update(api_keys).where(unrotated).values(replaced_by=new.id, expires_at=ends).returning(api_keys.c.id)
        async with transaction(self._engine) as connection:
            if (await connection.execute(marked)).first() is None:
                raise Conflict(f"API key {old_id} was deleted or already rotated; rotate the key that replaced it")
            await connection.execute(insert(api_keys).values(asdict(new)))

    async def delete(self, key_id: str) -> bool:
        """See `KeyStore`."""
        gone = delete(api_keys).where(api_keys.c.id == key_id).returning(api_keys.c.id)
        async with transaction(self._engine) as connection:
            return (await connection.execute(gone)).first() is not None

    async def record_use(self, used: Mapping[str, datetime]) -> None:
        """See `KeyStore`."""
        if not used:
            return
        # Sorted, so that all processes lock the rows in the same order.
        values: list[dict[str, Any]] = [{"key": key, "at": used[key]} for key in sorted(used)]
        latest = func.greatest(api_keys.c.last_used_at, bindparam("at"))
        statement = update(api_keys).where(api_keys.c.id == bindparam("key")).values(last_used_at=latest)
        async with transaction(self._engine) as connection:
            await connection.execute(statement, values)
