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
"""Begins the mark of a namespace whose history is being changed."""
ANSWER_SECONDS = 0.25
OPEN_SECONDS = 5.0
"""A cache that did not answer is left alone for so long: nobody is to wait for it."""
_log = get_logger(__name__)


def version_key(namespace: str) -> str:
    """Where the mark of a namespace stands."""
    return f"{naming.KEY_API_PREFIX}mark:{namespace}"


def new_version() -> str:
    """A mark that no cached answer has."""
    return secrets.token_hex(8)


class CircuitBreaker:
    """Whether the cache is to be asked: a failure makes it rest for a while, and is said once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0
        self._failing = False

    @property
    def resting(self) -> bool:
        """It failed a moment ago."""
        return self._clock() < self._until

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Ask it within the block.

        Raises:
            Unavailable: it failed, as is remembered.
        """
        try:
            yield
        except Unavailable as error:
            self._until = self._clock() + OPEN_SECONDS
            if not self._failing:
                _log.warning("cache_away", cause=str(error))
            self._failing = True
            raise Unavailable("the cache does not answer", Dependency.CACHE) from error
        if self._failing:
            _log.info("cache_back")
        self._failing = False


class CacheVersions:
    """CacheVersions of namespaces, against which cached answers of the REST API are held: an answer counts only under the mark that it was made under.

    Whoever changes the history calls `changing` before the commit and `changed` after it. In between nothing is answered from the
    cache or put into it. If he dies there, that stays so until the next change of the namespace: slower, and never wrong.

    Args:
        client: the cache's Redis. None: there is no cache, and nothing is marked.
    """

    def __init__(self, client: redis.asyncio.Redis | None) -> None:
        self._client = client
        self._breaker = CircuitBreaker()

    @property
    def wanted(self) -> bool:
        """There is a cache."""
        return self._client is not None

    async def changing(self, namespaces: Collection[str]) -> None:
        """Their history is about to change. Never raises: whoever changes it does not wait for a cache."""
        await self._set(namespaces, CHANGING)

    async def changed(self, namespaces: Collection[str]) -> None:
        """It has changed; what was cached counts no longer. Never raises."""
        await self._set(namespaces, "")

    async def _set(self, namespaces: Collection[str], prefix: str) -> None:
        if self._client is None or not namespaces or self._breaker.resting:
            return
        with suppress(Unavailable), self._breaker.noting():
            async with answering(ANSWER_SECONDS), self._client.pipeline(transaction=False) as pipe:
                for namespace in namespaces:
                    pipe.set(version_key(namespace), prefix + new_version(), ex=KEPT_SECONDS)
                await pipe.execute()
