"""Whose turn it is, when several namespaces want what there is one of."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable


class FairQueue:
    """Keys of several flows, taken in turns: weighted round robin, which is deficit round robin (Shreedhar and Varghese, 1995) for
    pieces of work of one size.

    In each round a flow gives at most as many keys as its weight, in the order in which they came. So a key waits for at most the
    weights of the other flows, times the number of keys before it in its own flow over its weight, rounded up. Calls take
    constant time, however many keys and flows there are.

    Args:
        weight: of a flow, at least 1; asked for once a round.
    """

    def __init__(self, weight: Callable[[str], int] = lambda _: 1) -> None:
        self._weight = weight
        # A plain dict passes over the places of all that were taken, again each time.
        self._flows: dict[str, OrderedDict[str, None]] = {}
        self._order: deque[str] = deque()
        self._left = 0
        """Keys that the flow whose turn it is may still give in this round; 0 when its turn has not begun."""
        self._count = 0

    def put(self, flow: str, key: str, *, first: bool = False) -> None:
        """Let a key wait in a flow, behind its others or before them. One that waits there already keeps its
        place, unless it shall be first.
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
        """The key waits there no longer, if it did."""
        keys = self._flows.get(flow, OrderedDict())
        if key in keys:
            # A flow that is empty now is left where it is: whoever comes to its turn removes it.
            del keys[key]
            self._count -= 1

    def take(self) -> str:
        """The next key; there must be one."""
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
