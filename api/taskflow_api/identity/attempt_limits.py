"""Limits how often a password or a registration can be attempted."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

from taskflow_api.gcra.counters import RETRY_SECONDS, Counter, LocalCounter, ResettableCounter
from taskflow_api.gcra.limit import Limit
from taskflow_api.metrics import UNCOUNTED
from taskflow_core.errors import Unavailable


class AttemptLimit:
    """A limit of `quota` attempts for each name, which become available again evenly within `seconds`.

    Args:
        kind: The kind of attempt, for the key and the metrics.
        quota: The number of attempts.
        seconds: The window of the limit.
        shared: Counts for all API processes; None if this process counts alone, which it also does without Redis.
        clock: Monotonic seconds.
    """

    def __init__(
        self, kind: str, quota: int, seconds: int, shared: ResettableCounter | None, clock: Callable[[], float]
    ) -> None:
        self._kind, self._quota, self._seconds = kind, quota, seconds
        self._shared = shared
        self._local = LocalCounter(clock)
        self._clock = clock
        self._retry_at = 0.0

    async def consume(self, name: str) -> int:
        """Count an attempt; returns 0, or the seconds to wait if there were too many.

        An attempt is counted before its outcome is known, so concurrent attempts do not exceed the limit.
        """
        limit = self._limit(name)
        if self._shared is None:
            return await self._wait(self._local, limit)
        if self._clock() >= self._retry_at:
            try:
                return await self._wait(self._shared, limit)
            except Unavailable:
                # Not logged here: the rate limit of the same request uses the same Redis and logs the failure.
                self._retry_at = self._clock() + RETRY_SECONDS
        UNCOUNTED.labels(self._kind).inc()
        return await self._wait(self._local, limit)

    async def reset(self, name: str) -> None:
        """Make all attempts available again after a successful one."""
        limit = self._limit(name)
        await self._local.reset(limit)
        if self._shared is not None and self._clock() >= self._retry_at:
            # If this fails, the attempts become available again with time.
            with suppress(Unavailable):
                await self._shared.reset(limit)

    @staticmethod
    async def _wait(counter: Counter, limit: Limit) -> int:
        (state,) = await counter.consume([limit], 1)
        return 0 if state.passes else max(1, math.ceil(state.wait_micros / 1_000_000))

    def _limit(self, name: str) -> Limit:
        return Limit(self._kind, f"{self._kind}:{name}", self._quota, self._seconds)
