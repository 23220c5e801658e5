from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime


class Agenda:
    """Which Tasks are to be looked at, and when. It lives in memory: a restart looks at all open Tasks, and their times are in them.

    Args:
        now: the time.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._due: dict[str, None] = {}
        self._timers: list[tuple[datetime, str]] = []
        self._changed = asyncio.Event()

    def wake(self, uid: str) -> None:
        """Look at this Task now."""
        self._due[uid] = None
        self._changed.set()

    def wake_at(self, uid: str, when: datetime | None) -> None:
        """Look at this Task at that time; None is now."""
        if when is None:
            self.wake(uid)
            return
        heapq.heappush(self._timers, (when, uid))
        self._changed.set()

    def put_back(self, uids: Iterable[str]) -> None:
        """They were taken and not looked at: they come first."""
        self._due = dict.fromkeys(uids) | self._due

    def due_by(self, when: datetime) -> Iterator[str]:
        """Tasks that are to be looked at until then, some of them more than once."""
        places = [0]
        while places:
            place = places.pop()
            # A heap: below what is later, everything is.
            if place < len(self._timers) and self._timers[place][0] <= when:
                yield self._timers[place][1]
                places += (2 * place + 1, 2 * place + 2)

    async def take(self, limit: int) -> list[str]:
        """What is due, at most `limit`; waits until something is."""
        while True:
            now = self._now()
            while self._timers and self._timers[0][0] <= now:
                self._due[heapq.heappop(self._timers)[1]] = None
            if self._due:
                taken = [uid for uid, _ in zip(self._due, range(limit), strict=False)]
                for uid in taken:
                    del self._due[uid]
                return taken
            self._changed.clear()
            timeout = (self._timers[0][0] - now).total_seconds() if self._timers else None
            try:
                await asyncio.wait_for(self._changed.wait(), timeout)
            except TimeoutError:
                continue
