"""Shares one worker among several flows."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable


class FairQueue:
    """Keys of several flows, served by weighted round robin. For items of one size that is deficit round robin
    (Shreedhar and Varghese, 1995).

    In each round a flow gives at most as many keys as its weight, in the order in which they came. A key therefore
    waits for at most the weights of the other flows, times the number of keys before it in its own flow over its
    weight, rounded up. Calls take constant time, however many keys and flows there are.

    Args:
        weight: of a flow, at least 1; asked once a round.
    """

    def __init__(self, weight: Callable[[str], int] = lambda _: 1) -> None:
        self._weight = weight
        # Taking the first key of a plain dict scans over all keys that were removed before.
        self._flows: dict[str, OrderedDict[str, None]] = {}
        self._order: deque[str] = deque()
        self._left = 0
        """Keys that the current flow may still give in this round; 0 before its turn begins."""
        self._count = 0

    def put(self, flow: str, key: str, *, first: bool = False) -> None:
        """Add a key to a flow, at its end or its front. A key that waits there already keeps its place, unless
        `first`.
        """
        keys = self._flows.get(flow)
        if keys is None:
            keys = self._flows[flow] = OrderedDict()
            self._order.append(flow)
        if key not in keys:
            keys[key] = None
            self._count += 1
        if first:
            keys.move_to_end(key, last=False)

    def drop(self, flow: str, key: str) -> None:
        """Remove a key from a flow, if it is there."""
        keys = self._flows.get(flow, OrderedDict())
        if key in keys:
            # An empty flow stays in the order until its turn, which removes it.
            del keys[key]
            self._count -= 1

    def take(self) -> str:
        """Remove and return the next key; there must be one."""
        while not (keys := self._flows[self._order[0]]):
            self._remove()
        if self._left == 0:
            self._left = max(self._weight(self._order[0]), 1)
        key, _ = keys.popitem(last=False)
        self._count -= 1
        self._left -= 1
        if not keys:
            self._remove()
        elif self._left == 0:
            self._order.rotate(-1)
        return key

    def _remove(self) -> None:
        del self._flows[self._order.popleft()]
        self._left = 0

    def __len__(self) -> int:
        """Keys that wait."""
        return self._count
