"""Looks up the Tasks that a Task depends on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import NotFound, Unavailable
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_operator.runtime import dependency_health
from taskflow_operator.tasks.cycles import find_cycle
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import PastOutcomes
from taskflow_operator.tasks.rules.decision import DependencyState


class DependencyLookup:
    """States of dependencies: from memory, else the API server, else the history, which knows deleted Tasks."""

    def __init__(self, tasks: OpenTasks, kube: KubeClient, history: PastOutcomes) -> None:
        self._tasks = tasks
        self._kube = kube
        self._history = history
        # One search at a time: however many there are, the event loop is held for one slice.
        self._searching = asyncio.Lock()

    async def states(self, task: Task) -> tuple[Sequence[DependencyState], Sequence[str]]:
        """States of `spec.dependsOn` in its order, and the cycle that the Task is part of, or nothing."""
        if not task.spec.depends_on:
            return (), ()
        cycle = await self._cycle(task)
        if cycle:
            return [DependencyState.OPEN] * len(task.spec.depends_on), cycle
        return [await self._state(task.namespace, wanted.name) for wanted in task.spec.depends_on], ()

    async def _cycle(self, task: Task) -> Sequence[str]:
        known = self._tasks.get(task.uid)
        if known is not None and known.acyclic:
            return ()
        async with self._searching:
            cycle = await find_cycle(task, self._tasks)
        if known is not None:
            known.acyclic = not cycle
        return cycle

    async def _state(self, namespace: str, name: str) -> DependencyState:
        if self._tasks.by_name(namespace, name) is not None:
            return DependencyState.OPEN
        phase = self._tasks.outcome(namespace, name)
        if phase is None:
            try:
                body = await self._kube.request("GET", tasks_path(namespace, name))
            except NotFound:
                return await self._past_state(namespace, name)
            else:
                found = (body.get("status") or {}).get("phase")
                phase = Phase(found) if found else None
        if phase is None or not phase.terminal:
            return DependencyState.OPEN
        return _ended(phase)

    async def _past_state(self, namespace: str, name: str) -> DependencyState:
        try:
            phase = await self._history.outcome(namespace, name)
        except Unavailable as error:
            dependency_health.failed(error)
            return DependencyState.UNKNOWN
        return DependencyState.MISSING if phase is None else _ended(phase)


def _ended(phase: Phase) -> DependencyState:
    return DependencyState.SUCCEEDED if phase is Phase.SUCCEEDED else DependencyState.ENDED_BADLY
