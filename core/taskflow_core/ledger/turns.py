"""Lets other coroutines run during long work."""

from __future__ import annotations

import asyncio
import time


class Turns:
    """Gives others a turn whenever this one has lasted long enough.

    Args:
        seconds: how long a turn lasts.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()

    async def give(self) -> None:
        """Called between two pieces of work."""
        if time.monotonic() - self._began >= self._seconds:
            await asyncio.sleep(0)
            self._began = time.monotonic()
