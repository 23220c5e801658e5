"""Connections to PostgreSQL, and the translation of its errors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import certifi
import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Engine, event, exc, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from taskflow_core.errors import Dependency, Invalid, TaskflowError, Unavailable
from taskflow_core.service_urls import database_url, login_of
from taskflow_core.settings import DatabaseSettings

CONNECT_SECONDS = 5
POOL_WAIT_SECONDS = 5
DEAD_PEER_MS = 15_000
_VERIFYING = ("verify-ca", "verify-full")
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
        Invalid: libpq does not know an option of the URL; the message does not have the URL.
    """
    url = engine_url(settings)
    engine = create_async_engine(
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
    log_in_anew(engine.sync_engine, settings)
    return engine


def engine_url(settings: DatabaseSettings) -> URL:
    """The URL, with the authorities by which a verified certificate is trusted.

    Raises:
        Invalid: see `create_engine`.
    """
    url = make_url(settings.url.get_secret_value())
    try:
        make_conninfo(**dict.fromkeys(url.query, ""))
        url.get_dialect()().create_connect_args(url)
    except psycopg.ProgrammingError as error:
        # It names the option, and nothing before the '?' gets here.
        raise Invalid(f"TASKFLOW_DATABASE_URL: after '?': {str(error).strip()}") from None
    except (exc.ArgumentError, ValueError):
        raise Invalid("TASKFLOW_DATABASE_URL: after '?': expected host=name:port, once for each host") from None
    if settings.ca and url.query.get("sslmode", "verify-full") not in _VERIFYING:
        raise Invalid("TASKFLOW_DATABASE_CA: expected sslmode=verify-full in TASKFLOW_DATABASE_URL, or no sslmode")
    if settings.ca and "sslrootcert" in url.query:
        raise Invalid("TASKFLOW_DATABASE_CA and sslrootcert in TASKFLOW_DATABASE_URL are both set: choose one of them")
    if settings.ca:
        url = url.update_query_dict({"sslmode": url.query.get("sslmode", "verify-full")})
    if url.query.get("sslmode") in _VERIFYING and "sslrootcert" not in url.query:
        url = url.update_query_dict({"sslrootcert": _authorities(settings.ca)})
    return url


@cache
def _authorities(ca: str) -> str:
    """Path of a file with the public authorities and these, which libpq reads for each connection."""
    public = os.environ.get("SSL_CERT_FILE") or certifi.where()
    if not ca:
        return public
    content = Path(public).read_bytes() + b"\n" + ca.encode()
    if sys.platform == "linux":
        # In memory: the file system of a container may be read-only.
        memory = os.memfd_create("authorities")
        with open(memory, "wb", closefd=False) as file:
            file.write(content)
        return f"/proc/self/fd/{memory}"
    with NamedTemporaryFile(prefix="taskflow-authorities-", suffix=".pem", delete=False) as file:
        file.write(content)
    return file.name


def log_in_anew(engine: Engine, settings: DatabaseSettings) -> None:
    """Look up user and password for each connection of the engine: if the URL is in a file, they may have changed."""

    def with_login(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        try:
            login = login_of(database_url(settings.url.get_secret_value()))
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            raise psycopg.OperationalError(f"TASKFLOW_DATABASE_URL cannot be read again: {said}") from None
        if login.user is not None:
            options["user"] = login.user
        if login.password is not None:
            options["password"] = login.password

    event.listen(engine, "do_connect", with_login)


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
