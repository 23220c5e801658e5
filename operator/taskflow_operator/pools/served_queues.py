"""Which queues are served by WorkerPools, why a pool takes nothing at the moment, and whether it is rolled out."""

from __future__ import annotations

from datetime import datetime

from taskflow_operator.tasks.rules.unknown_handler import Rollout


class ServedQueues:
    """The queues of each WorkerPool."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, str], tuple[frozenset[str], str | None]] = {}
        self._rollouts: dict[tuple[str, str], Rollout] = {}

    def put(self, namespace: str, name: str, queues: frozenset[str], blocked: str | None = None) -> bool:
        """Record a pool, and why it takes nothing now; True if that changed anything."""
        former = self._pools.get((namespace, name))
        self._pools[namespace, name] = queues, blocked
        return former != (queues, blocked)

    def remove(self, namespace: str, name: str) -> bool:
        """The pool is gone; True if it was known."""
        self._rollouts.pop((namespace, name), None)
        return self._pools.pop((namespace, name), None) is not None

    def queues(self, namespace: str) -> frozenset[str]:
        """Queues that some WorkerPool of the namespace serves."""
        return frozenset().union(*(queues for (where, _), (queues, _) in self._pools.items() if where == namespace))

    def blocked(self, namespace: str, queue: str) -> str | None:
        """Why none of the pools that serve the queue takes anything now; None if one does."""
        found = [why for (where, _), (queues, why) in self._pools.items() if where == namespace and queue in queues]
        return "; ".join(why for why in found if why) if found and all(found) else None

    def put_rollout(self, namespace: str, name: str, now: datetime, *, going: bool) -> None:
        """Record whether a pool is being rolled out. One that is seen for the first time may just have been."""
        former = self._rollouts.get((namespace, name))
        if going or former is None or former.going:
            self._rollouts[namespace, name] = Rollout(name, going, now)

    def rollout(self, namespace: str, queue: str) -> Rollout | None:
        """The rollout of a pool that serves the queue: one that is going, or else the latest; None if none was seen."""
        found = [
            self._rollouts[where]
            for where, (queues, _) in self._pools.items()
            if where[0] == namespace and queue in queues and where in self._rollouts
        ]
        return max(found, key=lambda each: (each.going, each.seen), default=None)
