"""Connections to Redis, and the translation of its errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib import resources

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from taskflow_core.errors import Dependency, Unavailable
from taskflow_core.redis_login import redis_login
from taskflow_core.redis_primary import follow_async, follow_sync
from taskflow_core.service_urls import of_one_server
from taskflow_core.settings import RedisSettings

MAX_STREAM_LENGTH = 1_000_000
"""About 114 MB of Redis memory; a reader that falls further behind resynchronises."""
TOMBSTONE_SECONDS = 3600
"""How long the claim of a closed attempt refuses late deliveries and stale operators."""
CLAIM_SECONDS = 7 * 24 * 3600
"""A claim outlives any pause of its worker; heartbeats renew it."""
_CONNECT_TIMEOUT = 5
_SOCKET_TIMEOUT = 5


def connect_sync(settings: RedisSettings) -> redis.Redis:
    """A client that fails within seconds and leaves retries to its caller."""
    pool = redis.BlockingConnectionPool.from_url(
        of_one_server(settings.url.get_secret_value()),
        credential_provider=redis_login(settings.url),
        decode_responses=True,
        # Others write keys that we read. Bytes that are no UTF-8 become lone surrogates, which no check lets through,
        # instead of an error that hides the whole answer.
        encoding_errors="surrogateescape",
        max_connections=4,
        timeout=_SOCKET_TIMEOUT,
        socket_timeout=_SOCKET_TIMEOUT,
        socket_connect_timeout=_CONNECT_TIMEOUT,
        health_check_interval=15,
        **settings.tls,
        # One immediate retry: an idle connection that the server closed is noticed only by using it.
        retry=Retry(NoBackoff(), 1),
    )
    follow_sync(pool, settings)
    return redis.Redis.from_pool(pool)


def connect_async(settings: RedisSettings) -> redis.asyncio.Redis:
    """The same for asyncio; a blocking stream read may last up to its own BLOCK time within the socket timeout."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        of_one_server(settings.url.get_secret_value()),
        credential_provider=redis_login(settings.url),
        decode_responses=True,
        encoding_errors="surrogateescape",
        max_connections=16,
        timeout=_SOCKET_TIMEOUT,
        socket_timeout=_SOCKET_TIMEOUT,
        socket_connect_timeout=_CONNECT_TIMEOUT,
        health_check_interval=15,
        **settings.tls,
        retry=AsyncRetry(NoBackoff(), 1),
    )
    follow_async(pool, settings)
    return redis.asyncio.Redis.from_pool(pool)


@cache
def script(name: str) -> str:
    """Source of one of our Lua scripts."""
    return resources.files("taskflow_core.ledger").joinpath("lua", f"{name}.lua").read_text()


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate Redis' errors to ours.

    Raises:
        Unavailable: for every one: down, loading, out of memory, no permission. All may pass; none means a lost task.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable(f"Redis: {str(error) or type(error).__name__}", Dependency.REDIS) from error


@asynccontextmanager
async def answering(seconds: float) -> AsyncIterator[None]:
    """Limit how long Redis is asked within the block; the client itself waits for seconds, and retries once.

    Raises:
        Unavailable: as `redis_errors`, or it did not answer in time.
    """
    try:
        async with asyncio.timeout(seconds):
            with redis_errors():
                yield
    except TimeoutError as error:
        raise Unavailable(f"Redis: no answer in {seconds} s", Dependency.REDIS) from error
