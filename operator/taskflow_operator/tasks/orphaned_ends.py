from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from taskflow_core.domain.events import Event, EventKind
from taskflow_core.domain.task import Task
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.kube.client import Requests, tasks_path
from taskflow_core.ledger.operator import Attempt, OperatorLedger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.tasks.settlement import Settlement
from taskflow_operator.tasks.snapshots import snapshot

AT_ONCE = 16
RETRY_SECONDS = 1.0
PATIENCE = 10
"""Looks into the history, a second apart: it reads the same stream, so it has the Task soon, if at all."""


class Names(Protocol):
    """What PostgreSQL knows. Raises `Unavailable`."""

    async def name_of(self, uid: str) -> tuple[str, str] | None:
        """Namespace and name of the Task; None if it was never heard of."""


class OrphanedEnds:
    """Ends of attempts whose Task is not open: it finished, or is gone.

    Mostly that is old news. But an operator may have died between the last status of a Task and settling its attempt; then whoever
    comes next settles it in its place, and with it the history hears of the end. How much that costs follows from how many ends
    were left, not from how many Tasks there are.

    Args:
        ledger: whether an attempt was settled.
        kube: the Task as it ended.
        names: of Tasks by their uid.
        mirror_again: mirrors all Tasks, for one that nobody can name.
    """

    def __init__(
        self, ledger: OperatorLedger, kube: Requests, names: Names, mirror_again: Callable[[str], Awaitable[None]]
    ) -> None:
        self._ledger = ledger
        self._kube = kube
        self._names = names
        self._mirror_again = mirror_again
        self._settlement = Settlement(ledger)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def close(self, event: Event) -> None:
        """Returns when the attempt is settled, which lasts as long as something is away that knows of it."""
        if await self._once(event):
            return
        # Its name went with what Redis lost, so the history never gets it from the stream.
        await self._mirror_again("an attempt ended while the operator did not run")

    async def _once(self, event: Event) -> bool:
        looks = 0
        while looks < PATIENCE:
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
        (state,) = await self._ledger.states([(event.uid, event.attempt)])
        if state.settled:
            return True
        where = await self._names.name_of(event.uid)
        if where is None:
            return False
        try:
            task = Task.from_object(await self._kube.request("GET", tasks_path(*where)))
        except NotFound:
            return True
        if task.uid != event.uid:
            return True
        if not task.finished:
            # The watch has not shown it yet; what is open is settled by its own path, at the latest when this is read again.
            return False
        await self._settlement.settle(Attempt(event.uid, event.attempt, snapshot(task)), EventKind.SETTLED)
        return True
