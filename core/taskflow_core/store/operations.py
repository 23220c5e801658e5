"""Operations on many Tasks: their rows, and the lease by which one API process at a time works on each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, or_, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from taskflow_core.store.engine import database_errors
from taskflow_core.store.tables import operations

MAX_RUNNING = 10
"""In one namespace at a time."""
LEASE_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRow:
    """An operation; columns of table `operations` but for its lease."""

    id: str
    namespace: str
    verb: str
    filter: dict[str, Any]
    caller: dict[str, Any]
    """As whom each change is made."""
    state: str
    """Running, Done, Failed (it was given up; `message` says why)."""
    message: str = ""
    after_created_at: datetime | None = None
    after_uid: str | None = None
    matched: int = 0
    done: int = 0
    failed: int = 0
    problems: list[dict[str, Any]]
    created_at: datetime
    finished_at: datetime | None = None


_COLUMNS = [operations.c[name] for name in OperationRow.__slots__]
_PROGRESS = (
    "state",
    "message",
    "after_created_at",
    "after_uid",
    "matched",
    "done",
    "failed",
    "problems",
    "finished_at",
)


async def start(connection: AsyncConnection, row: OperationRow) -> bool:
    """Store a new one; False if the namespace has as many as may run at a time.

    Raises:
        Unavailable: the database does not answer; so do all functions here.
    """
    with database_errors():
        # Two that begin together would both find room.
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"operations {row.namespace}"}
        )
        running = select(func.count()).where(
            operations.c.namespace == row.namespace, operations.c.finished_at.is_(None)
        )
        if (await connection.execute(running)).scalar_one() >= MAX_RUNNING:
            return False
        values = {name: getattr(row, name) for name in OperationRow.__slots__}
        await connection.execute(insert(operations).values(values))
    return True


async def get(connection: AsyncConnection, namespace: str, id_: str) -> OperationRow | None:
    """One of a namespace."""
    query = select(*_COLUMNS).where(operations.c.namespace == namespace, operations.c.id == id_)
    with database_errors():
        found = (await connection.execute(query)).mappings().first()
    return None if found is None else OperationRow(**found)


async def page(
    connection: AsyncConnection, namespace: str, *, after: tuple[datetime, str] | None, limit: int
) -> list[OperationRow]:
    """Those of a namespace, newest first, after (created_at, id)."""
    query = select(*_COLUMNS).where(operations.c.namespace == namespace)
    if after is not None:
        query = query.where(tuple_(operations.c.created_at, operations.c.id) < tuple_(*after))
    query = query.order_by(operations.c.created_at.desc(), operations.c.id.desc()).limit(limit)
    with database_errors():
        return [OperationRow(**row) for row in (await connection.execute(query)).mappings()]


async def remove(connection: AsyncConnection, namespace: str, id_: str) -> bool:
    """Delete it; whoever works on it stops. False if there is none."""
    statement = delete(operations).where(operations.c.namespace == namespace, operations.c.id == id_)
    with database_errors():
        return (await connection.execute(statement)).rowcount > 0


async def take(connection: AsyncConnection, holder: str) -> OperationRow | None:
    """Lease the one that nobody works on and that waits longest for its turn; None if there is none. By the database's
    clock, which all processes share.
    """
    free = (
        select(operations.c.id)
        .where(operations.c.finished_at.is_(None))
        .where(or_(operations.c.leased_until.is_(None), operations.c.leased_until < func.now()))
        .order_by(func.coalesce(operations.c.leased_until, operations.c.created_at))
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    statement = (
        update(operations)
        .where(operations.c.id == free)
        .values(lease=holder, leased_until=func.now() + text(f"interval '{LEASE_SECONDS} seconds'"))
        .returning(*_COLUMNS)
    )
    with database_errors():
        found = (await connection.execute(statement)).mappings().first()
    return None if found is None else OperationRow(**found)


async def save(connection: AsyncConnection, row: OperationRow, holder: str, *, keep: bool = True) -> bool:
    """Store how far it is and renew the lease, or give it back; False if it was deleted, or another holds it now.

    One that is given back waits behind all that wait already.
    """
    until = func.now() + text(f"interval '{LEASE_SECONDS} seconds'") if keep else func.now()
    statement = (
        update(operations)
        .where(operations.c.id == row.id, operations.c.lease == holder)
        .values(
            {name: getattr(row, name) for name in _PROGRESS}
            | {"leased_until": until, "lease": holder if keep else None}
        )
    )
    with database_errors():
        return (await connection.execute(statement)).rowcount > 0
