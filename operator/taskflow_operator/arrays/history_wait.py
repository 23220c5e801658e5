"""What an array shows while PostgreSQL, which has what ended of it, does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from taskflow_core.errors import Unavailable
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.dependency_health import RETRY_SECONDS
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.status import TaskStatuses

T = TypeVar("T")


class HistoryWait:
    """Of one array.

    Args:
        uid: the Task.
        tasks: the open Tasks.
        statuses: where its status is shown.
        held: whether the Task is held for another reason, which is shown then.
        now: the time.
    """

    def __init__(
        self,
        uid: str,
        tasks: OpenTasks,
        statuses: TaskStatuses,
        held: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._uid = uid
        self._tasks = tasks
        self._statuses = statuses
        self._held = held
        self._now = now
        self._since: datetime | None = None

    @property
    def seconds(self) -> float:
        """How long it has waited; 0 while it does not."""
        return 0.0 if self._since is None else (self._now() - self._since).total_seconds()

    async def until_answered(self, action: Callable[[], Awaitable[T]]) -> T:
        """What the history answers; waits while it does not."""
        while True:
            try:
                found = await action()
            except Unavailable as error:
                await self.pause(error)
            else:
                self.back()
                return found

    async def pause(self, error: Unavailable) -> None:
        """The history does not answer: show that, and wait a moment."""
        dependency_health.failed(error)
        self._since = self._since or self._now()
        known = self._tasks.get(self._uid)
        if known is not None and not known.closing and not self._held():
            self._statuses.show(known.task, transitions.history_away(known.task, self._now()))
        await asyncio.sleep(RETRY_SECONDS)

    def back(self) -> None:
        """The history answered."""
        self._since = None
