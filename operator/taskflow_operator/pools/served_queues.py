"""Which queues are served by WorkerPools, and why a pool takes nothing at the moment."""

from __future__ import annotations


class ServedQueues:
    """The queues of each WorkerPool."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, str], tuple[frozenset[str], str | None]] = {}

    def put(self, namespace: str, name: str, queues: frozenset[str], blocked: str | None = None) -> bool:
        """Record a pool, and why it takes nothing now; True if that changed anything."""
        former = self._pools.get((namespace, name))
        self._pools[namespace, name] = queues, blocked
        return former != (queues, blocked)

    def remove(self, namespace: str, name: str) -> bool:
        """The pool is gone; True if it was known."""
        return self._pools.pop((namespace, name), None) is not None

    def queues(self, namespace: str) -> frozenset[str]:
        """Queues that some WorkerPool of the namespace serves."""
        return frozenset().union(*(queues for (where, _), (queues, _) in self._pools.items() if where == namespace))

    def blocked(self, namespace: str, queue: str) -> str | None:
        """Why none of the pools that serve the queue takes anything now; None if one does."""
        found = [why for (where, _), (queues, why) in self._pools.items() if where == namespace and queue in queues]
        return "; ".join(why for why in found if why) if found and all(found) else None
