from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from taskflow_api.limits.limiter import AWAY_SECONDS, Counter, LocalCounter
from taskflow_api.limits.policy import Limit
from taskflow_api.metrics import UNCOUNTED
from taskflow_core.errors import Unavailable


class Forgiving(Counter, Protocol):
    """A counter that also begins anew."""

    async def forget(self, limit: Limit) -> None:
        """All units are there again. Raises `Unavailable`."""


class Attempts:
    """`quota` attempts of a name at once, which come back evenly within `seconds`.

    Args:
        kind: what is attempted.
        quota: how many.
        seconds: see above.
        shared: counts for all API processes; None, or away: this one counts for itself.
        clock: monotonic seconds.
    """

    def __init__(
        self, kind: str, quota: int, seconds: int, shared: Forgiving | None, clock: Callable[[], float]
    ) -> None:
        self._kind, self._quota, self._seconds = kind, quota, seconds
        self._shared = shared
        self._local = LocalCounter(clock)
        self._clock = clock
        self._away_until = 0.0

    async def take(self, name: str) -> int:
        """Count one; 0, or how many seconds to wait because there were too many.

        Counted before it is decided, so that many at once are not more than one after the other.
        """
        limit = self._limit(name)
        if self._shared is None:
            return await self._wait(self._local, limit)
        if self._clock() >= self._away_until:
            try:
                return await self._wait(self._shared, limit)
            except Unavailable:
                # Said in the log by the limit of this same request, which counts in the same Redis.
                self._away_until = self._clock() + AWAY_SECONDS
        UNCOUNTED.labels(self._kind).inc()
        return await self._wait(self._local, limit)

    async def forget(self, name: str) -> None:
        """Begin anew: the last one was right."""
        limit = self._limit(name)
        await self._local.forget(limit)
        if self._shared is not None and self._clock() >= self._away_until:
            # Not forgotten, they come back by themselves.
            with suppress(Unavailable):
                await self._shared.forget(limit)

    @staticmethod
    async def _wait(counter: Counter, limit: Limit) -> int:
        (standing,) = await counter.take([limit], 1)
        return 0 if standing.passes else max(1, math.ceil(standing.wait_micros / 1_000_000))

    def _limit(self, name: str) -> Limit:
        return Limit(self._kind, f"{self._kind}:{name}", self._quota, self._seconds)
