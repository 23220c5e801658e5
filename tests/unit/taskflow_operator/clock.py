from __future__ import annotations

import asyncio
from collections.abc import Callable


class Clock:
    """Monotonic seconds that pass only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds


async def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    """Let others run until it holds; TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)
