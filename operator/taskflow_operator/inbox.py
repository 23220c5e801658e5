from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taskflow_operator.going_on import Stumbles

SLICE = 50
"""Objects taken between two turns of the event loop: a list of thousands must not hold up a renewal of the Lease."""


@dataclass(frozen=True)
class Seen:
    """What a watch in another thread saw."""

    take: Callable[[dict[str, Any], bool], None]
    """Who wants to know: gets the object, and whether it is gone."""
    body: dict[str, Any]
    gone: bool


class Inbox:
    """Carries what another thread saw onto the event loop, in order. Make it on that loop.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._seen: deque[Seen] = deque()
        self._arrived = asyncio.Event()
        self._stumbles = Stumbles("watch")
        self.latest = clock()
        """When something last arrived."""

    def put(self, seen: Seen) -> None:
        """Take it over; from any thread, at once."""
        self._seen.append(seen)
        self._loop.call_soon_threadsafe(self._arrived.set)

    async def run(self) -> None:
        """Hand on what arrives, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            self.latest = self._clock()
            self._stumbles.check()
            while self._seen:
                for _ in range(min(SLICE, len(self._seen))):
                    self._take(self._seen.popleft())
                await asyncio.sleep(0)

    def _take(self, seen: Seen) -> None:
        try:
            seen.take(seen.body, seen.gone)
        except Exception as error:  # noqa: BLE001 - one object that nobody thought of must not stop the others
            meta = seen.body.get("metadata") or {}
            self._stumbles.over(
                error, object=f"{seen.body.get('kind')} {meta.get('namespace')}/{meta.get('name')}", uid=meta.get("uid")
            )
        else:
            self._stumbles.passed()
