"""Which Tasks the dispatcher looks at, and when. Kept in memory: a restart looks at all open Tasks, and their times are
in them.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from taskflow_operator.runtime.fair_queue import FairQueue

_RESYNC = ""
"""The flow of Tasks that are looked at without news. All namespaces together have the share of one. No namespace has
this name."""


CLOCK_SECONDS = 10.0
"""How often the clock is read while something is to become due: it may be set meanwhile, or the machine sleep."""


class WorkQueue:
    """Uids of Tasks that are due now or at a time.

    Namespaces take turns, so that the work of one costs the others no more than their share (`docs/scale.md`).

    Args:
        now: the time.
        namespace_of: the namespace of a Task, by its uid; any string for one that is not known.
        weight: how many Tasks of a namespace are taken in one round.
    """

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        namespace_of: Callable[[str], str] = lambda _: "one",
        weight: Callable[[str], int] = lambda _: 1,
    ) -> None:
        self._now = now
        self._namespace_of = namespace_of
        self._due = FairQueue(weight)
        self._where: dict[str, str] = {}
        """The flow in which a Task waits."""
        self._timers: list[tuple[datetime, str]] = []
        self._changed = asyncio.Event()

    def add(self, uid: str) -> None:
        """Look at a Task now."""
        self._put(uid, self._namespace_of(uid))
        self._changed.set()

    def add_at(self, uid: str, when: datetime | None) -> None:
        """Look at a Task at that time; None is now."""
        if when is None:
            self.add(uid)
            return
        heapq.heappush(self._timers, (when, uid))
        self._changed.set()

    def add_resync(self, uids: Iterable[str]) -> None:
        """Look at Tasks of which no change is known. Together they wait like the Tasks of one namespace."""
        for uid in uids:
            if uid not in self._where:
                self._put(uid, _RESYNC)
        self._changed.set()

    def put_back(self, uids: Sequence[str]) -> None:
        """Return Tasks that were taken and not handled. They come first in their namespace."""
        for uid in reversed(uids):
            self._put(uid, self._namespace_of(uid), first=True)

    def _put(self, uid: str, flow: str, *, first: bool = False) -> None:
        former = self._where.get(uid)
        if former is not None and former != flow:
            # A change does not wait behind Tasks without one.
            self._due.drop(former, uid)
        self._where[uid] = flow
        self._due.put(flow, uid, first=first)

    def due_by(self, when: datetime) -> Iterator[str]:
        """Tasks that are due by then, some of them more than once."""
        places = [0]
        while places:
            place = places.pop()
            # In a heap, the children of a later entry are later too.
            if place < len(self._timers) and self._timers[place][0] <= when:
                yield self._timers[place][1]
                places += (2 * place + 1, 2 * place + 2)

    def __len__(self) -> int:
        """How many Tasks are due now."""
        return len(self._due)

    async def take(self, limit: int) -> list[str]:
        """At most `limit` Tasks that are due; waits until one is."""
        while True:
            now = self._now()
            while self._timers and self._timers[0][0] <= now:
                uid = heapq.heappop(self._timers)[1]
                self._put(uid, self._namespace_of(uid))
            if self._due:
                taken = [self._due.take() for _ in range(min(limit, len(self._due)))]
                for uid in taken:
                    del self._where[uid]
                return taken
            self._changed.clear()
            timeout = min((self._timers[0][0] - now).total_seconds(), CLOCK_SECONDS) if self._timers else None
            try:
                # Not wait_for: until Python 3.12 it loses a cancellation that comes together with the event.
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                continue
