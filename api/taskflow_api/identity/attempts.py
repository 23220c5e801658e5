from __future__ import annotations

import math
from collections.abc import Callable

from taskflow_api.auth import CACHE_ENTRIES, ExpiringCache


class Attempts:
    """At most `limit` attempts of a name within `seconds`, counted from the first of them, in this process."""

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._counts = ExpiringCache[str, list[float]](seconds, CACHE_ENTRIES, clock)

    def take(self, name: str) -> int:
        """Count one; 0, or how many seconds to wait because there were too many.

        Counted before it is decided, so that many at once are not more than one after the other.
        """
        times = self._counts.get(name)
        if times is None:
            times = []
            self._counts.put(name, times)
        if len(times) >= self._limit:
            return max(1, math.ceil(times[0] + self._seconds - self._clock()))
        times.append(self._clock())
        return 0

    def forget(self, name: str) -> None:
        """Begin anew: the last one was right."""
        self._counts.drop(name)
