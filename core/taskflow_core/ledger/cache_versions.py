"""Versions of namespaces, by which cached answers of the REST API expire."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

import redis.asyncio

from taskflow_core.domain import naming
from taskflow_core.errors import Dependency, Unavailable
from taskflow_core.ledger.connect import answering
from taskflow_core.telemetry.logs import get_logger

KEPT_SECONDS = 24 * 3600
CHANGING = "~"
"""Prefix of the version of a namespace whose history is being changed."""
ANSWER_SECONDS = 0.25
OPEN_SECONDS = 5.0
"""A cache that did not answer is not asked for this long, so that nobody waits for it."""
_log = get_logger(__name__)


def version_key(namespace: str) -> str:
    """Redis key of the version of a namespace."""
    return f"{naming.KEY_API_PREFIX}mark:{namespace}"


def new_version() -> str:
    """A version that no cached answer has."""
    return secrets.token_hex(8)


class CircuitBreaker:
    """Stops asking a cache for a while after a failure, which is logged once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0
        self._failing = False

    @property
    def open(self) -> bool:
        """The cache failed a moment ago and is not to be asked."""
        return self._clock() < self._until

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Ask the cache within the block.

        Raises:
            Unavailable: it failed.
        """
        try:
            yield
        except Unavailable as error:
            self._until = self._clock() + OPEN_SECONDS
            if not self._failing:
                _log.warning("cache_unavailable", cause=str(error))
            self._failing = True
            raise Unavailable("the cache does not answer", Dependency.CACHE) from error
        if self._failing:
            _log.info("cache_recovered")
        self._failing = False


class CacheVersions:
    """Writes a new version of a namespace when its history changes. A cached answer is valid only for the version that
    it was made under.

    A writer calls `changing` before its commit and `changed` after it. In between nothing is answered from the cache or
    put into it. If the writer dies there, that lasts until the next change of the namespace: slower, and never wrong.

    Args:
        client: the cache's Redis. None: there is no cache, and nothing is written.
    """

    def __init__(self, client: redis.asyncio.Redis | None) -> None:
        self._client = client
        self._breaker = CircuitBreaker()

    @property
    def wanted(self) -> bool:
        """Whether there is a cache."""
        return self._client is not None

    async def changing(self, namespaces: Collection[str]) -> None:
        """The history of namespaces is about to change. Never raises: a writer does not wait for a cache."""
        await self._set(namespaces, CHANGING)

    async def changed(self, namespaces: Collection[str]) -> None:
        """The history has changed; cached answers are invalid. Never raises."""
        await self._set(namespaces, "")

    async def _set(self, namespaces: Collection[str], prefix: str) -> None:
        if self._client is None or not namespaces or self._breaker.open:
            return
        with suppress(Unavailable), self._breaker.guard():
            async with answering(ANSWER_SECONDS), self._client.pipeline(transaction=False) as pipe:
                for namespace in namespaces:
                    pipe.set(version_key(namespace), prefix + new_version(), ex=KEPT_SECONDS)
                await pipe.execute()
