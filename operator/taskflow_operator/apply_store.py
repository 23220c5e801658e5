from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from taskflow_core.domain.events import Event
from taskflow_core.domain.task import Task
from taskflow_core.errors import TaskflowError
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.reading import read_for_ever

log = get_logger(__name__)
RETRY_SECONDS = 5.0


class History(Protocol):
    """The database. Methods raise `Unavailable` and may be repeated."""

    async def apply_events(self, events: Sequence[Event]) -> None:
        """Fold events into the tables."""

    async def upsert_tasks(self, tasks: Sequence[Task]) -> None:
        """Mirror Tasks as they stand."""


class ApplyToStore:
    """Stream group `pg`: folds events into PostgreSQL. When the database is away only this group falls behind.

    Args:
        history: the database.
        reader: the group.
        list_tasks: pages of all Tasks as Kubernetes objects.
    """

    def __init__(
        self, history: History, reader: StreamReader, list_tasks: Callable[[], AsyncIterator[list[dict[str, Any]]]]
    ) -> None:
        self._history = history
        self._reader = reader
        self._list_tasks = list_tasks
        self._wanted = asyncio.Event()

    def mirror_again(self, why: str) -> None:
        """Mirror all Tasks that still exist, because events may be missing."""
        log.warning("mirroring_again", why=why)
        self._wanted.set()

    def loops(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs until cancelled."""
        return read_for_ever(self._reader, self._take, self.mirror_again), self._mirror_when_wanted()

    async def _take(self, events: tuple[Event, ...], broken: tuple[str, ...]) -> None:
        await self._history.apply_events(events)
        await self._reader.acknowledge([*(event.id for event in events), *broken])

    async def _mirror_when_wanted(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                count = await self._mirror()
            except TaskflowError as error:
                log.warning("mirroring_postponed", error=str(error))
                self._wanted.set()
                await asyncio.sleep(RETRY_SECONDS)
            else:
                log.info("mirrored", tasks=count)

    async def _mirror(self) -> int:
        count = 0
        async for page in self._list_tasks():
            tasks: list[Task] = []
            for body in page:
                try:
                    tasks.append(Task.from_object(body))
                except ValidationError as error:
                    log.error("task_unreadable", name=body["metadata"]["name"], error=str(error))  # noqa: TRY400
            await self._history.upsert_tasks(tasks)
            count += len(tasks)
        return count
