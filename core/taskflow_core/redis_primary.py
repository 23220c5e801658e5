"""Redis with Sentinels: each connection asks them where the primary is when it is made.

redis-py has a client for Sentinels, which is not used (https://github.com/redis/redis-py/blob/v8.1.0/redis/sentinel.py):
a connection that is lost within a command goes back to the same server, and reads from it for good if that is a replica
now; several tasks or threads that ask at the same time may take a Sentinel off its list; and its connections to the
Sentinels stay open.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from taskflow_core.service_urls import Sentinels, of_one_server, sentinels_of
from taskflow_core.settings import RedisSettings

_SECONDS = 1.0
"""How long a Sentinel may take: one that is gone must not keep the others from being asked."""
_QUESTION = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME")


class _Asked:
    """The Sentinels, and how they are asked."""

    def __init__(self, sentinels: Sentinels, settings: RedisSettings) -> None:
        self._name = sentinels.name
        self._first = 0
        url = urlsplit(of_one_server(settings.url.get_secret_value()))
        hosts = [(f"[{host}]" if ":" in host else host, port) for host, port in sentinels.addresses]
        self._urls = [url._replace(netloc=f"{host}:{port}", path="").geturl() for host, port in hosts]
        self._options: dict[str, Any] = {
            **settings.tls,
            "socket_timeout": _SECONDS,
            "socket_connect_timeout": _SECONDS,
            "decode_responses": True,
        }

    def _turns(self) -> list[int]:
        """Each Sentinel once, first the one that knew the primary last."""
        first, count = self._first, len(self._urls)
        return [(first + turn) % count for turn in range(count)]

    def _read(self, turn: int, answer: Any) -> tuple[str, int]:
        if not answer:
            raise RedisConnectionError("it does not know it")
        self._first = turn
        host, port = answer
        return str(host), int(port)

    def _unknown(self, problems: dict[int, Exception]) -> RedisConnectionError:
        said = "; ".join(f"{urlsplit(self._urls[turn]).netloc}: {error}" for turn, error in problems.items())
        return RedisConnectionError(f"no Sentinel says where the primary {self._name} is: {said}")


class Primary(_Asked):
    """The primary, for connections that block. Threads may share it."""

    def address(self) -> tuple[str, int]:
        """Host and port, as a Sentinel says now.

        Raises:
            redis.exceptions.ConnectionError: none of them says it.
        """
        problems: dict[int, Exception] = {}
        for turn in self._turns():
            try:
                with redis.Redis.from_url(self._urls[turn], **self._options, retry=Retry(NoBackoff(), 0)) as sentinel:
                    return self._read(turn, sentinel.execute_command(*_QUESTION, self._name))
            except (RedisError, OSError) as error:
                problems[turn] = error
        raise self._unknown(problems)


class AsyncPrimary(_Asked):
    """The same for asyncio."""

    async def address(self) -> tuple[str, int]:
        """Host and port, as a Sentinel says now.

        Raises:
            redis.exceptions.ConnectionError: none of them says it.
        """
        problems: dict[int, Exception] = {}
        for turn in self._turns():
            # Typed loosely: redis-py publishes no types for single commands.
            client: Any = redis.asyncio.Redis.from_url(
                self._urls[turn], **self._options, retry=AsyncRetry(NoBackoff(), 0)
            )
            try:
                async with client as sentinel:
                    return self._read(turn, await sentinel.execute_command(*_QUESTION, self._name))
            except (RedisError, OSError) as error:
                problems[turn] = error
        raise self._unknown(problems)


class PrimaryConnection(redis.Connection):
    """A connection to the primary, by options of redis-py."""

    def __init__(self, *, primary: Primary, **options: Any) -> None:
        self._primary = primary
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """As redis-py's, whenever a connection is opened, to where the primary is then."""
        if not self.is_connected:
            self.host, self.port = self._primary.address()
        super().connect_check_health(*arguments, **options)

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """As redis-py's.

        Raises:
            redis.exceptions.ConnectionError: also if the server is not the primary any more. kombu would take that for
                an error of the command, and end the worker.
        """
        try:
            return super().read_response(*arguments, **options)
        except ResponseError as error:
            if not _displaced(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError(str(error)) from error


class PrimarySSLConnection(PrimaryConnection, redis.SSLConnection):
    """The same by TLS."""


class AsyncPrimaryConnection(redis.asyncio.Connection):
    """The same for asyncio."""

    def __init__(self, *, primary: AsyncPrimary, **options: Any) -> None:
        self._primary = primary
        super().__init__(**options)

    async def connect_check_health(self, *arguments: Any, **options: Any) -> None:
        """As redis-py's, whenever a connection is opened, to where the primary is then."""
        if not self.is_connected:
            self.host, self.port = await self._primary.address()
        await super().connect_check_health(*arguments, **options)

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """As redis-py's.

        Raises:
            redis.exceptions.ConnectionError: also if the server is not the primary any more.
        """
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as error:
            if not _displaced(error):
                raise
            await self.disconnect()
            raise RedisConnectionError(str(error)) from error


class AsyncPrimarySSLConnection(AsyncPrimaryConnection, redis.asyncio.SSLConnection):
    """The same by TLS."""


def _displaced(error: ResponseError) -> bool:
    """Whether it became a replica, maybe within a command that waits, or has lost its replicas to another primary."""
    return isinstance(error, ReadOnlyError) or str(error).startswith(("UNBLOCKED", "NOREPLICAS"))


def primary_of(settings: RedisSettings) -> Primary | None:
    """The primary that the Sentinels in a URL know; None if the URL has the address of Redis itself."""
    sentinels = sentinels_of(settings.url.get_secret_value())
    return None if sentinels is None else Primary(sentinels, settings)


def follow_sync(pool: redis.ConnectionPool, settings: RedisSettings) -> None:
    """Let the connections of a new pool go to the primary, if the URL has Sentinels."""
    if (primary := primary_of(settings)) is not None:
        pool.connection_class = PrimarySSLConnection if settings.tls else PrimaryConnection
        pool.connection_kwargs["primary"] = primary


def follow_async(pool: redis.asyncio.ConnectionPool, settings: RedisSettings) -> None:
    """The same for asyncio, where options of a pool could not say it: the class of its URL would win."""
    if (sentinels := sentinels_of(settings.url.get_secret_value())) is not None:
        pool.connection_class = AsyncPrimarySSLConnection if settings.tls else AsyncPrimaryConnection
        pool.connection_kwargs["primary"] = AsyncPrimary(sentinels, settings)
