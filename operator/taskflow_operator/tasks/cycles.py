"""Cycles among the open Tasks of a namespace.

Without I/O, but in slices: the operator has one event loop, and whoever may create Tasks decides how many dependencies
there are to follow.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from taskflow_core.domain.task import Task
from taskflow_operator.tasks.open_tasks import OpenTasks

SLICE = 500
"""Dependencies that are followed, about 0.2 ms, before others have their turn in the event loop."""


async def find_cycle(task: Task, tasks: OpenTasks) -> Sequence[str]:
    """Names of a cycle of open Tasks that leads from this one back to it, itself first and last; empty if there is
    none.

    Follows what the Task depends on and what depends on it by turns: as soon as one of the two has an end there is no
    cycle. So a Task that is created after all that it needs, or before all that need it, costs nothing.

    Tasks that are added meanwhile may be left out. The cycle that such a Task closes is found by looking at that one.
    """
    while cycle := await _search(task, tasks):
        if _stands(cycle, task, tasks):
            return cycle
    return ()


class _Reached:
    """What was reached from a Task in one direction, breadth first, one edge at a time."""

    def __init__(self, start: str, neighbours: Callable[[str], Iterable[str]]) -> None:
        self.came_from: dict[str, str] = {start: start}
        self._start = start
        self._neighbours = neighbours
        self._ahead: deque[str] = deque()
        self._at = start
        self._edges: Iterator[str] = iter(neighbours(start))

    def step(self) -> tuple[str, str] | None:
        """Follow one edge: from where to where; None if there is none left."""
        while (reached := next(self._edges, None)) is None:
            if not self._ahead:
                return None
            self._at = self._ahead.popleft()
            self._edges = iter(self._neighbours(self._at))
        if reached not in self.came_from:
            self.came_from[reached] = self._at
            self._ahead.append(reached)
        return self._at, reached

    def path(self, to: str) -> list[str]:
        """From the start to there."""
        names = [to]
        while names[-1] != self._start:
            names.append(self.came_from[names[-1]])
        return names[::-1]


async def _search(task: Task, tasks: OpenTasks) -> Sequence[str]:
    def needs(name: str) -> Iterable[str]:
        known = tasks.by_name(task.namespace, name)
        found = task if name == task.name else known.task if known is not None else None
        return [] if found is None else [dependency.name for dependency in found.spec.depends_on]

    def needed_by(name: str) -> Iterator[str]:
        # In any order: it is of no matter which of several cycles is named.
        return (known.task.name for uid in tasks.dependents(task.namespace, name) if (known := tasks.get(uid)))

    forward, backward = _Reached(task.name, needs), _Reached(task.name, needed_by)
    followed = 0
    while True:
        if (edge := forward.step()) is None:
            return ()
        if edge[1] in backward.came_from:
            return forward.path(edge[0]) + backward.path(edge[1])[::-1]
        if (edge := backward.step()) is None:
            # Unless it depends on itself without being open, nothing leads back to it.
            return ()
        if edge[1] in forward.came_from:
            return forward.path(edge[1]) + backward.path(edge[0])[::-1]
        followed += 2
        if followed >= SLICE:
            followed = 0
            await asyncio.sleep(0)


def _stands(cycle: Sequence[str], task: Task, tasks: OpenTasks) -> bool:
    """Whether each still depends on the next: any of them may have ended while the others were followed."""
    for name, following in pairwise(cycle):
        known = tasks.by_name(task.namespace, name)
        if known is None or all(each.name != following for each in known.task.spec.depends_on):
            return False
    return True
