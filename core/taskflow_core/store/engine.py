"""Connections to PostgreSQL, and the translation of its errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from sqlalchemy import exc, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from taskflow_core.errors import Dependency, Invalid, TaskflowError, Unavailable
from taskflow_core.settings import DatabaseSettings

DRIVER = "postgresql+psycopg"
CONNECT_SECONDS = 5
POOL_WAIT_SECONDS = 5
DEAD_PEER_MS = 15_000
_UNMIGRATED = {"42P01", "42703", "3F000"}
# Class of SQLSTATE -> the same call may succeed later. https://www.postgresql.org/docs/current/errcodes-appendix.html
# 08 connection, 25 read-only standby, 28 and 3D while being set up, 40 deadlock, 53 resources, 55 lock, 57 shutdown or
# timeout, 58 system.
_TRANSIENT_CLASSES = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58"})


def create_engine(
    settings: DatabaseSettings, *, application_name: str, pool_size: int = 5, statement_timeout_seconds: int = 10
) -> AsyncEngine:
    """A pool of at most `pool_size` connections, opened on demand.

    Waits are bounded: 5 s to connect, 5 s for a free connection, 15 s on a peer that vanished (Linux), and
    `statement_timeout_seconds` for any statement, locks included. Errors never carry the values of parameters.

    Raises:
        Invalid: the URL is none of PostgreSQL; the message does not have it.
    """
    try:
        url = make_url(settings.url.get_secret_value())
    except exc.ArgumentError:
        url = None
    if url is None or url.drivername != DRIVER:
        raise Invalid(f"TASKFLOW_DATABASE_URL: expected {DRIVER}://user:password@host:port/database")
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=_to_json,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "application_name": application_name,
            "options": f"-c statement_timeout={statement_timeout_seconds}s -c timezone=UTC",
            "keepalives_idle": 30,
            "tcp_user_timeout": DEAD_PEER_MS,
        },
    )


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection with a transaction, committed at the end of the block.

    Raises:
        Unavailable: the database does not answer, now or at the commit.
    """
    with database_errors():
        async with engine.begin() as connection:
            yield connection


@contextmanager
def database_errors() -> Iterator[None]:
    """Translate what the driver raises inside the block.

    Raises:
        Unavailable: the database does not answer, is not ready, or its schema is not there yet.
        TaskflowError: it refused a statement; without the statement and its values.
    """
    try:
        yield
    except exc.TimeoutError as error:
        raise Unavailable(
            f"history database: no free connection within {POOL_WAIT_SECONDS} s", Dependency.POSTGRES
        ) from error
    except exc.DBAPIError as error:
        lost = error.connection_invalidated or isinstance(error, exc.InterfaceError)
        raise _translated(error.orig, lost=lost, operational=isinstance(error, exc.OperationalError)) from error
    except psycopg.Error as error:
        # From COPY, which SQLAlchemy does not know.
        raise _translated(error, lost=False, operational=isinstance(error, psycopg.OperationalError)) from error


def sqlstate(error: exc.DBAPIError) -> str:
    """PostgreSQL's code of the error; empty when it comes from the client side."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _translated(error: BaseException | None, *, lost: bool, operational: bool) -> TaskflowError:
    state = str(getattr(error, "sqlstate", None) or "")
    said = str(error).strip().partition("\n")[0]
    if state in _UNMIGRATED:
        return Unavailable(f"history database: {said}; run python -m taskflow_core.store.migrate", Dependency.POSTGRES)
    if lost or state[:2] in _TRANSIENT_CLASSES or (operational and not state):
        return Unavailable(f"history database: {said}", Dependency.POSTGRES)
    return TaskflowError(f"history database refused a statement ({state}): {said}")


def _to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
