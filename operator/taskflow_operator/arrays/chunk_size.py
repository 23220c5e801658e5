"""How many items a chunk gets, from how long items have taken. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

TARGET_SECONDS = 0.25
"""How long a chunk should take: the geometric middle of 50 and 500 ms."""
MIN_SECONDS = 0.05
"""In a shorter chunk, a message costs more than a few percent of the work."""
MAX_ITEMS = 100_000
GROWTH = 8
"""A chunk gets at most this many times the items that were measured, because the next items may differ."""
MEMORY = 0.7
"""The weight of a chunk after each later one."""
LEAST_MEASURED = 0.0005
"""Workers measure whole milliseconds."""


@dataclass(frozen=True)
class ChunkSizer:
    """The time that an item takes: the mean of all items seen, in which old ones count less."""

    seen: float = 0.0
    seconds: float = 0.0
    size: int = 1
    """Items of the next chunk, if there are enough."""

    def after(self, ran: int, seconds: float, *, cut: bool) -> ChunkSizer:
        """The sizer after a chunk has run.

        Args:
            ran: items that it ran.
            seconds: how long that took.
            cut: it ended before its last item, because of its time or its output, so the next one is no larger.
        """
        if ran == 0:
            return self
        seen, spent = self.seen * MEMORY + ran, self.seconds * MEMORY + max(seconds, LEAST_MEASURED)
        most = ran if cut else max(ran * GROWTH, self.size)
        return ChunkSizer(seen, spent, max(min(int(TARGET_SECONDS * seen / spent), most, MAX_ITEMS), 1))

    def items(self, left: int, chunks: int) -> int:
        """How many items the next chunk gets.

        Args:
            left: items that are not handed out.
            chunks: how many may be in flight. Near the end they become smaller, so that all of them end at the same
                time.
        """
        share = math.ceil(left / chunks)
        least = int(MIN_SECONDS * self.seen / self.seconds) if self.seen else 1
        return max(min(self.size, max(share, least)), 1)
