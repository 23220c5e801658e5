"""Tells which streams were written, without reading them.

Redis' client-side caching (https://redis.io/docs/latest/develop/reference/client-side-caching/) announces once that a
key changed which a connection has looked at. So a stream that nobody writes costs nothing, however many there are, and
a flood of entries is announced no more often than we look again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from taskflow_core.ledger.connect import redis_errors

REARM_SECONDS = 0.005
"""The least time between two looks, and so between two announcements of a key."""
ALIVE_SECONDS = 5.0
"""The time between two questions that show that the connection is alive."""
_ANNOUNCED = "announced"
_AT_ONCE = 500
"""Keys that one command looks at."""


class KeyChanges:
    """Announces changes of keys.

    Args:
        client: whose pool has the connection settings; one connection is taken for good.
        changed: called with keys that changed, and with all of them when a connection begins.
    """

    def __init__(self, client: redis.asyncio.Redis, changed: Callable[[Collection[str]], None]) -> None:
        self._client = client
        self._changed = changed
        self._keys: dict[str, None] = {}
        self._unarmed: dict[str, None] = {}
        self._wanted = asyncio.Event()

    def watch(self, keys: Iterable[str]) -> None:
        """Announce changes of these keys, too."""
        for key in keys:
            if key not in self._keys:
                self._keys[key] = None
                self._unarmed[key] = None
        self._wanted.set()

    def forget(self, keys: Iterable[str]) -> None:
        """Announce changes of these keys no longer."""
        for key in keys:
            self._keys.pop(key, None)
            self._unarmed.pop(key, None)

    async def run(self) -> None:
        """Announce until the connection fails, or this is cancelled.

        Raises:
            Unavailable: the connection failed, or Redis does not allow it; run it again.
        """
        with redis_errors():
            connection: Any = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            connection.protocol = 3
            try:
                await connection.connect()
                await connection.send_command("CLIENT", "TRACKING", "ON")
                await connection.read_response()
                await self._serve(connection)
            finally:
                with suppress(RedisError, OSError):
                    await connection.disconnect(nowait=True)

    async def _serve(self, connection: Any) -> None:
        # What happened before this connection was made was not announced.
        self._unarmed = dict(self._keys)
        asked: list[Collection[str]] = []

        async def announced(push: Any) -> str:
            keys = push[1]
            found = self._keys.keys() if keys is None else [key for key in map(str, keys) if key in self._keys]
            self._unarmed.update(dict.fromkeys(found))
            self._wanted.set()
            return _ANNOUNCED

        # redis-py has no public way to hear of announcements in its asynchronous client.
        connection._parser.set_invalidation_push_handler(announced)  # noqa: SLF001
        asking = asyncio.create_task(self._ask(connection, asked))
        try:
            while not asking.done():
                answer = await connection.read_response(timeout=2 * ALIVE_SECONDS, push_request=True)
                if answer is None:
                    raise ConnectionError("Redis does not answer")
                if answer != _ANNOUNCED:
                    # Only now: what is written from here on is announced, and what was written before will be read.
                    self._changed(asked.pop(0))
            asking.result()
        finally:
            asking.cancel()
            # AttributeError: redis-py's, of a connection that it closes while something is sent.
            with suppress(asyncio.CancelledError, RedisError, OSError, AttributeError):
                await asking

    async def _ask(self, connection: Any, asked: list[Collection[str]]) -> None:
        while True:
            began = time.monotonic()
            self._wanted.clear()
            keys, self._unarmed = list(self._unarmed), {}
            for start in range(0, max(1, len(keys)), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                asked.append(some)
                await connection.send_command("EXISTS", *(some or ["tf:epoch"]))
            # Not wait_for: until Python 3.12 it loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(ALIVE_SECONDS):
                    await self._wanted.wait()
            await asyncio.sleep(max(0.0, began + REARM_SECONDS - time.monotonic()))
