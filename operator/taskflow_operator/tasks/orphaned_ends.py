"""Handles ends of attempts whose Task is not open any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from taskflow_core.domain.attempts import Attempt, AttemptKey
from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.task import Task
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.kube.client import Requests, tasks_path
from taskflow_operator.runtime import dependency_health
from taskflow_operator.tasks.ports import Ledger, PastNames
from taskflow_operator.tasks.settlement import Settlement
from taskflow_operator.tasks.snapshots import snapshot

AT_ONCE = 16
RETRY_SECONDS = 1.0
MAX_LOOKUPS = 10
"""Lookups in the history, a second apart: it reads the same stream, so it has the Task soon, if at all."""


class OrphanedEnds:
    """Ends of attempts whose Task is not open, because it finished or is gone.

    Most of them were handled before. But an operator may have died between the last status of a Task and settling its
    attempt. Its successor then settles the attempt, and so the history gets the end. The cost grows with the number of
    such ends, not with the number of Tasks.

    Args:
        ledger: knows whether an attempt was settled.
        settlement: closes attempts in the ledger.
        kube: reads the Task as it ended.
        history: names Tasks by their uid.
        mirror_again: mirrors the Tasks of namespaces, for one that nobody can name.
    """

    def __init__(
        self,
        ledger: Ledger,
        settlement: Settlement,
        kube: Requests,
        history: PastNames,
        mirror_again: Callable[[Collection[str]], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._kube = kube
        self._history = history
        self._mirror_again = mirror_again
        self._settlement = settlement
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def close(self, event: Event) -> None:
        """Settle the attempt; waits while something that knows of it is unavailable."""
        if await self._once(event):
            return
        # Redis lost the name of the Task, so the history does not get it from the stream.
        await self._mirror_again([event.namespace])

    async def _once(self, event: Event) -> bool:
        looks = 0
        while looks < MAX_LOOKUPS:
            try:
                async with self._slots:
                    found = await self._look(event)
            except Unavailable as error:
                dependency_health.failed(error)
            else:
                if found:
                    return True
                looks += 1
            await asyncio.sleep(RETRY_SECONDS)
        return False

    async def _look(self, event: Event) -> bool:
        (state,) = await self._ledger.states([AttemptKey(event.namespace, event.uid, event.attempt)])
        if state.settled:
            return True
        where = await self._history.name_of(event.uid)
        if where is None:
            return False
        task = await self._find(*where) if where[0] == event.namespace else None
        if task is None or task.uid != event.uid:
            return True
        if not task.finished:
            # The watch has not shown it yet. An open Task is settled in the usual way, at the latest when this event is
            # read again.
            return False
        await self._settlement.settle(Attempt(event.uid, event.attempt, snapshot(task)), EventKind.SETTLED)
        return True

    async def _find(self, namespace: str, name: str) -> Task | None:
        try:
            return Task.from_object(await self._kube.request("GET", tasks_path(namespace, name)))
        except NotFound:
            return None
