"""Deliveries in PostgreSQL, for the routes that show them and the notifiers that make them.

Database triggers (`migrations/`) add the rows, in the transaction that writes the end of a Task.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import ColumnElement, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.webhooks.endpoints import DELIVERED, FAILED, PENDING, EndpointRow, change
from taskflow_api.webhooks.tables import deliveries, webhooks
from taskflow_core.errors import Conflict
from taskflow_core.store.engine import transaction

LEASE = timedelta(seconds=45)
"""Three times the maximum duration of an attempt, so an expired lease means that its holder is dead or stalled."""
PER_ENDPOINT = 4
"""Concurrent attempts of one notifier to one endpoint, so that a slow endpoint does not delay the others."""
MAX_TRIES = 20
"""How many of the latest attempts are kept."""
_SWEEP_ROWS = 1000


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery: the columns of `webhook_deliveries` without the lease."""

    id: str
    webhook_id: str
    namespace: str
    event_id: str
    """The header `webhook-id`: derived from the Task and its state, the same in every attempt."""
    type: str
    payload: str
    task_uid: str | None
    task_name: str | None
    created_at: datetime
    state: str = PENDING
    attempts: int = 0
    """Since the delivery was created or replayed."""
    tries: list[dict[str, Any]] = ()  # type: ignore[assignment]
    """For each attempt: time, status, error, milliseconds, and the start of the response."""
    next_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A delivery that this notifier has leased, and its endpoint."""

    delivery: DeliveryRow
    endpoint: EndpointRow


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an attempt."""

    attempt: dict[str, Any]
    delivered: bool
    retry_after: timedelta | None = None
    """When to try again; None gives up, unless the message was delivered."""
    disable: str = ""
    """Why to disable the endpoint; empty keeps it enabled."""

    @property
    def state(self) -> str:
        """The new state of the delivery."""
        if self.delivered:
            return DELIVERED
        return PENDING if self.retry_after is not None and not self.disable else FAILED


class Deliveries(Protocol):
    """The deliveries of endpoints, for routes. All methods raise Unavailable."""

    async def page(
        self, endpoint_id: str, *, state: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[DeliveryRow]:
        """A page of deliveries, newest first, after (created_at, id)."""

    async def get(self, endpoint_id: str, delivery_id: str) -> DeliveryRow | None:
        """A delivery of an endpoint."""

    async def add(self, row: DeliveryRow) -> None:
        """Add a delivery without a Task."""

    async def replay(self, endpoint_id: str, delivery_id: str) -> DeliveryRow | None:
        """Deliver again under the same event id; None if it does not exist. Raises Conflict if it is pending."""


_COLUMNS = [deliveries.c[name] for name in DeliveryRow.__slots__]
_FREE = {"lease": None, "leased_until": None}


class PostgresDeliveries:
    """`Deliveries` and the queue of the notifiers, on a connection pool. All times are those of the database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(
        self, endpoint_id: str, *, state: str | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[DeliveryRow]:
        """See `Deliveries`."""
        query = select(*_COLUMNS).where(deliveries.c.webhook_id == endpoint_id)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        if after is not None:
            query = query.where(tuple_(deliveries.c.created_at, deliveries.c.id) < tuple_(*after))
        query = query.order_by(deliveries.c.created_at.desc(), deliveries.c.id.desc()).limit(limit)
        async with transaction(self._engine) as connection:
            return [DeliveryRow(**row) for row in (await connection.execute(query)).mappings()]

    async def get(self, endpoint_id: str, delivery_id: str) -> DeliveryRow | None:
        """See `Deliveries`."""
        query = select(*_COLUMNS).where(_is(endpoint_id, delivery_id))
        async with transaction(self._engine) as connection:
            found = (await connection.execute(query)).mappings().first()
        return None if found is None else DeliveryRow(**found)

    async def add(self, row: DeliveryRow) -> None:
        """See `Deliveries`."""
        values = {name: getattr(row, name) for name in DeliveryRow.__slots__}
        async with transaction(self._engine) as connection:
            await connection.execute(insert(deliveries).values(values | {"tries": [], "next_at": func.now()}))

    async def replay(self, endpoint_id: str, delivery_id: str) -> DeliveryRow | None:
        """See `Deliveries`."""
        ended = _is(endpoint_id, delivery_id) & (deliveries.c.state != PENDING)
        values = {"state": PENDING, "attempts": 0, "next_at": func.now(), "finished_at": None, **_FREE}
        async with transaction(self._engine) as connection:
            statement = update(deliveries).where(ended).values(values).returning(*_COLUMNS)
            found = (await connection.execute(statement)).mappings().first()
            if found is None:
                there = await connection.execute(select(deliveries.c.id).where(_is(endpoint_id, delivery_id)))
                if there.first() is not None:
                    raise Conflict(f"delivery {delivery_id} is already pending")
        return None if found is None else DeliveryRow(**found)

    async def lease(self, holder: str, limit: int, *, full: frozenset[str] = frozenset()) -> list[LeasedDelivery]:
        """Lease up to `limit` due deliveries, the longest due first, but none of the endpoints in `full`."""
        free = deliveries.c.leased_until.is_(None) | (deliveries.c.leased_until < func.now())
        due = (deliveries.c.state == PENDING) & (deliveries.c.next_at <= func.now()) & free
        rank = func.row_number().over(partition_by=deliveries.c.webhook_id, order_by=deliveries.c.next_at)
        ranked = (
            select(deliveries.c.id, deliveries.c.next_at, rank.label("rank"))
            # Whatever wrote a delivery: what is of one namespace is never sent to an endpoint of another.
            .join(
                webhooks, (webhooks.c.id == deliveries.c.webhook_id) & (webhooks.c.namespace == deliveries.c.namespace)
            )
            .where(due, webhooks.c.disabled_at.is_(None), webhooks.c.id.not_in(sorted(full)))
            .subquery()
        )
        first = select(ranked.c.id).where(ranked.c.rank <= PER_ENDPOINT).order_by(ranked.c.next_at).limit(limit)
        # `due` is checked again, because another notifier may have finished the delivery since the rows were ranked.
        chosen = select(deliveries.c.id).where(deliveries.c.id.in_(first), due).with_for_update(skip_locked=True)
        statement = (
            update(deliveries)
            .where(deliveries.c.id.in_(chosen))
            .values(lease=holder, leased_until=func.now() + LEASE)
            .returning(*_COLUMNS)
        )
        async with transaction(self._engine) as connection:
            rows = [DeliveryRow(**row) for row in (await connection.execute(statement)).mappings()]
            query = select(webhooks).where(webhooks.c.id.in_({row.webhook_id for row in rows}))
            known = {row["id"]: EndpointRow(**row) for row in (await connection.execute(query)).mappings()}
        return [LeasedDelivery(row, known[row.webhook_id]) for row in rows if row.webhook_id in known]

    async def record(self, leased: LeasedDelivery, holder: str, outcome: Outcome) -> bool:
        """Store the outcome of an attempt and release the lease; False if the lease was lost or the row deleted."""
        row = leased.delivery
        ended = outcome.state != PENDING
        values = {
            "state": outcome.state,
            "attempts": row.attempts + 1,
            "tries": [*row.tries, outcome.attempt][-MAX_TRIES:],
            "next_at": None if ended or outcome.retry_after is None else func.now() + outcome.retry_after,
            "finished_at": func.now() if ended else None,
            **_FREE,
        }
        ours = (deliveries.c.id == row.id) & (deliveries.c.lease == holder)
        async with transaction(self._engine) as connection:
            stored = (await connection.execute(update(deliveries).where(ours).values(values))).rowcount > 0
            if stored and outcome.disable:
                disabled = {"disabled_at": func.now(), "disabled_reason": outcome.disable}
                await change(connection, row.webhook_id, disabled)
        return stored

    async def release(self, holder: str) -> None:
        """Release the leases of this notifier."""
        async with transaction(self._engine) as connection:
            await connection.execute(update(deliveries).where(deliveries.c.lease == holder).values(_FREE))

    async def sweep(self, keep: timedelta) -> int:
        """Delete up to 1,000 deliveries older than `keep` that finished or have no endpoint; returns their number."""
        gone = deliveries.c.webhook_id.not_in(select(webhooks.c.id))
        old = (deliveries.c.finished_at < func.now() - keep) | ((deliveries.c.created_at < func.now() - keep) & gone)
        some = select(deliveries.c.id).where(old).limit(_SWEEP_ROWS).with_for_update(skip_locked=True)
        async with transaction(self._engine) as connection:
            return (await connection.execute(delete(deliveries).where(deliveries.c.id.in_(some)))).rowcount

    async def backlog(self) -> tuple[int, float]:
        """The number of pending deliveries, and for how many seconds the oldest one has been due."""
        age = func.coalesce(func.extract("epoch", func.now() - func.min(deliveries.c.next_at)), 0)
        query = select(func.count(), age).where(deliveries.c.state == PENDING)
        async with transaction(self._engine) as connection:
            count, seconds = (await connection.execute(query)).one()
        return int(count), max(0.0, float(seconds))


def _is(endpoint_id: str, delivery_id: str) -> ColumnElement[bool]:
    return (deliveries.c.webhook_id == endpoint_id) & (deliveries.c.id == delivery_id)
