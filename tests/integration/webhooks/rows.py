"""Endpoints, finished Tasks and a notifier on a real database."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from taskflow_api.webhooks.deliveries import PostgresDeliveries
from taskflow_api.webhooks.endpoints import EndpointRow, PostgresEndpoints
from taskflow_api.webhooks.notifier import Notifier
from taskflow_api.webhooks.secrets import Vault, new_secret
from taskflow_api.webhooks.sender import Sender
from taskflow_api.webhooks.url_policy import Policy
from taskflow_core.domain.events import Event, EventKind
from taskflow_core.store import repository
from taskflow_core.store.engine import transaction
from tests.unit.taskflow_core.store.builders import snapshot
from tests.webhook_receiver import Receiver

VAULT = Vault([Fernet.generate_key().decode()])
NOW = datetime.now(UTC).replace(microsecond=0)
_numbers = count(1000)
TYPES = ["task.succeeded", "task.failed", "task.cancelled"]


def endpoint(name: str, url: str = "https://hooks.example.com/", **fields: Any) -> tuple[EndpointRow, str]:
    """A row and its secret."""
    secret = new_secret()
    values: dict[str, Any] = {
        "id": f"id-of-{name}",
        "namespace": "team-a",
        "name": name,
        "url": url,
        "types": TYPES,
        "every_task": True,
        "secret": VAULT.encrypt(secret),
        "created_at": NOW,
        "created_by": "alice",
    }
    return EndpointRow(**values | fields), secret


async def added(engine: AsyncEngine, name: str, url: str = "https://hooks.example.com/", **fields: Any) -> str:
    """Its secret."""
    row, secret = endpoint(name, url, **fields)
    await PostgresEndpoints(engine).add(row)
    return secret


def ended(uid: str, phase: str, **fields: Any) -> Event:
    """The operator's word of an end, each time another event."""
    told: dict[str, Any] = {"phase": phase, "reason": phase, "completionTime": "2026-09-21T12:00:09Z"}
    return snapshot(EventKind.SETTLED, next(_numbers), uid=uid, **told, **fields)


async def apply(engine: AsyncEngine, *events: Event) -> None:
    async with transaction(engine) as connection:
        assert await repository.apply_events(connection, events) == len(events)


async def rows(engine: AsyncEngine, *columns: str) -> list[tuple[Any, ...]]:
    query = f"SELECT {', '.join(columns)} FROM webhook_deliveries ORDER BY {', '.join(columns)}"
    async with transaction(engine) as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def make_due(engine: AsyncEngine) -> None:
    """As if all the pauses were over."""
    async with transaction(engine) as connection:
        await connection.execute(text("UPDATE webhook_deliveries SET next_at = now() WHERE state = 'Pending'"))


async def let_leases_run_out(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await connection.execute(
            text("UPDATE webhook_deliveries SET leased_until = now() - interval '1 s' WHERE lease <> ''")
        )


def notifier(engine: AsyncEngine, *receivers: Receiver) -> Notifier:
    policy = Policy.of([each.port for each in receivers], ("127.0.0.0/8",), http=True)
    sender = Sender(policy, total_seconds=5)
    return Notifier(PostgresDeliveries(engine), sender, VAULT, parallel=8, keep=timedelta(days=30))
