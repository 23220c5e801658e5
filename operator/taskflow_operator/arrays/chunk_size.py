"""How many items a chunk has: pure, from how long items were seen to take."""

from __future__ import annotations

import math
from dataclasses import dataclass

TARGET_SECONDS = 0.25
"""What a chunk is meant to last: the middle of 50 to 500 ms, by ratio."""
LEAST_SECONDS = 0.05
"""Below that the way of a message costs more than a few percent of the work."""
MOST_ITEMS = 100_000
GROWTH = 8
"""A chunk has at most so many times the items of what was measured, since the next items may be unlike the last."""
MEMORY = 0.7
"""What is remembered of a chunk after another one."""
LEAST_MEASURED = 0.0005
"""Workers measure whole milliseconds."""


@dataclass(frozen=True)
class ChunkSizer:
    """What is known of the time that an item takes: the mean over all items seen, of which those long ago count less."""

    seen: float = 0.0
    seconds: float = 0.0
    size: int = 1
    """Items of the next chunk, if there are enough."""

    def after(self, ran: int, seconds: float, *, cut: bool) -> ChunkSizer:
        """Once a chunk has run.

        Args:
            ran: items that it ran.
            seconds: how long that took.
            cut: it ended before its last item, for its time or for what it had to tell; so it shall not be larger than this.
        """
        if ran == 0:
            return self
        seen, spent = self.seen * MEMORY + ran, self.seconds * MEMORY + max(seconds, LEAST_MEASURED)
        most = ran if cut else max(ran * GROWTH, self.size)
        return ChunkSizer(seen, spent, max(min(int(TARGET_SECONDS * seen / spent), most, MOST_ITEMS), 1))

    def items(self, left: int, chunks: int) -> int:
        """How many items the next chunk gets.

        Args:
            left: items that are not handed out.
            chunks: how many chunks may be out at a time: near the end they become smaller, so that all of them end together.
        """
        share = math.ceil(left / chunks)
        least = int(LEAST_SECONDS * self.seen / self.seconds) if self.seen else 1
        return max(min(self.size, max(share, least)), 1)
