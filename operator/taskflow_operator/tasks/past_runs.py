"""Whether a Task with `spec.rerun` ran before. The history alone knows, so such a Task waits for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from taskflow_core.domain.phases import Phase
from taskflow_core.domain.run_once import PastRun, digest
from taskflow_core.domain.task import Rerun, Task
from taskflow_core.errors import Unavailable
from taskflow_operator.runtime import dependency_health
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules.decision import Unanswered

PATIENCE = timedelta(minutes=10)
"""How long a Task waits until the end of the Task that had its name before is in the history. It never comes if Redis
lost it together with the resource."""


class RunHistory(Protocol):
    """The history. Raises `Unavailable`."""

    async def find_run(self, namespace: str, name: str, digest: str) -> PastRun | None:
        """How the work of that name and digest ended; None if it never did."""

    async def stored(self, uids: Sequence[str]) -> Collection[str]:
        """Those of the uids whose end is stored."""


class PastRuns:
    """Asks the history once for each Task that has not been queued yet.

    Args:
        tasks: the open Tasks.
        history: knows what ran.
        now: the time.
    """

    def __init__(
        self, tasks: OpenTasks, history: RunHistory, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._tasks = tasks
        self._history = history
        self._now = now

    def wanted(self, task: Task) -> bool:
        """Whether it has to be asked before the Task may run. Asking again after a restart is harmless."""
        status, known = task.status, self._tasks.get(task.uid)
        begun = status.attempts > 0 or status.attempt > 1 or status.phase in (Phase.QUEUED, Phase.RUNNING)
        return task.spec.rerun is not Rerun.ALWAYS and not begun and not (known is not None and known.first_run)

    async def look(self, task: Task) -> PastRun | Unanswered | None:
        """The run because of which the Task does not run; None if it may."""
        if not self.wanted(task):
            return None
        known = self._tasks.get(task.uid)
        try:
            found = await self._history.find_run(task.namespace, task.name, digest(task.spec))
            if found is None and known is not None and not await self._told(task, known.former):
                return Unanswered.NOT_YET
        except Unavailable as error:
            dependency_health.failed(error)
            return Unanswered.UNAVAILABLE
        if found is not None and found.prevents(task.spec.rerun):
            return found
        if known is not None:
            known.first_run = True
        return None

    async def _told(self, task: Task, former: str) -> bool:
        """Whether the history knows the end of the Task that had the name until now, which it is told a moment later.

        Args:
            task: the new one.
            former: uid of the former one; empty if none ended recently.
        """
        if not former or self._now() - task.created > PATIENCE:
            return True
        return former in await self._history.stored([former])
