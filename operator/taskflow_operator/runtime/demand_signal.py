"""Tells the scaler that work was queued, without the two knowing each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress


class DemandSignal:
    """Set when an attempt is queued. Whoever scales waits for it.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = asyncio.Event()
        self._since: float | None = None

    def notify(self) -> None:
        """Something was queued."""
        if self._since is None:
            self._since = self._clock()
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Return when something is queued, or after that time."""
        # Not wait_for: until Python 3.12 it loses a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    @property
    def age(self) -> float | None:
        """Seconds since the first notification that was not handled; None if all were."""
        return None if self._since is None else self._clock() - self._since

    def handled(self) -> None:
        """All notifications up to now were acted on."""
        self._since = None
