"""Accounts in PostgreSQL. All methods raise Unavailable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Row, Select, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.identity.service_accounts import Binding
from taskflow_api.identity.tables import accounts
from taskflow_core.errors import Conflict
from taskflow_core.store.engine import transaction


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account."""

    id: str
    """Unique: a later account of the same name has another id."""
    name: str
    password_hash: str
    created_at: datetime
    binding: Binding | None = None
    """The ServiceAccount it is bound to; None until an administrator binds it."""


class AccountStore(Protocol):
    """The store of accounts."""

    async def add(self, row: AccountRow, *, delete_unbound_before: datetime) -> None:
        """Add an account, and delete old unbound ones. Raises Conflict if the name is taken."""

    async def by_name(self, name: str) -> AccountRow | None:
        """The account of that name."""

    async def by_id(self, account_id: str) -> AccountRow | None:
        """The account of that id."""

    async def all(self) -> list[AccountRow]:
        """All accounts, by name."""

    async def bind(self, name: str, binding: Binding | None, account_id: str = "") -> bool:
        """Bind or unbind an account; whether it exists and has that id, if one is given."""

    async def delete(self, name: str) -> bool:
        """Delete an account; whether it existed."""


class PostgresAccounts:
    """`AccountStore` on a connection pool."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, row: AccountRow, *, delete_unbound_before: datetime) -> None:
        """See `AccountStore`."""
        old = accounts.c.service_account.is_(None) & (accounts.c.created_at < delete_unbound_before)
        values = {name: getattr(row, name) for name in ("id", "name", "password_hash", "created_at")}
        unless_there = insert(accounts).values(values).on_conflict_do_nothing(index_elements=[accounts.c.name])
        async with transaction(self._engine) as connection:
            await connection.execute(delete(accounts).where(old))
            if (await connection.execute(unless_there.returning(accounts.c.id))).first() is None:
                raise Conflict(f"account {row.name} already exists")

    async def by_name(self, name: str) -> AccountRow | None:
        """See `AccountStore`."""
        found = await self._rows(select(accounts).where(accounts.c.name == name))
        return found[0] if found else None

    async def by_id(self, account_id: str) -> AccountRow | None:
        """See `AccountStore`."""
        found = await self._rows(select(accounts).where(accounts.c.id == account_id))
        return found[0] if found else None

    async def all(self) -> list[AccountRow]:
        """See `AccountStore`."""
        return await self._rows(select(accounts).order_by(accounts.c.name))

    async def bind(self, name: str, binding: Binding | None, account_id: str = "") -> bool:
        """See `AccountStore`."""
        values = {
            "namespace": binding and binding.namespace,
            "service_account": binding and binding.name,
            "service_account_uid": binding and binding.uid,
        }
        wanted = accounts.c.name == name
        if account_id:
            wanted &= accounts.c.id == account_id
        changed = update(accounts).where(wanted).values(values).returning(accounts.c.id)
        async with transaction(self._engine) as connection:
            return (await connection.execute(changed)).first() is not None

    async def delete(self, name: str) -> bool:
        """See `AccountStore`."""
        gone = delete(accounts).where(accounts.c.name == name).returning(accounts.c.id)
        async with transaction(self._engine) as connection:
            return (await connection.execute(gone)).first() is not None

    async def _rows(self, query: Select[tuple[object, ...]]) -> list[AccountRow]:
        async with transaction(self._engine) as connection:
            return [_account(row) for row in await connection.execute(query)]


def _account(row: Row[tuple[object, ...]]) -> AccountRow:
    found = row._mapping  # noqa: SLF001 - documented by SQLAlchemy
    binding = None
    if found["service_account"] is not None:
        binding = Binding(found["namespace"], found["service_account"], found["service_account_uid"])
    return AccountRow(found["id"], found["name"], found["password_hash"], found["created_at"], binding)
