"""Consumer group `pg` of the event stream: mirrors events and Tasks into PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Protocol

from pydantic import ValidationError

from taskflow_core.batching import isolate_failures
from taskflow_core.domain.events import Event
from taskflow_core.domain.task import Task
from taskflow_core.errors import Dependency, TaskflowError
from taskflow_core.kube.client import Page
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.stream_group import consume_group
from taskflow_operator.runtime.supervisor import ConsecutiveErrors

log = get_logger(__name__)
RETRY_SECONDS = 5.0
GATHER_SECONDS = 0.25
"""How much later than the resource the history may be."""


class History(Protocol):
    """The database. Methods raise `Unavailable` and may be repeated."""

    async def apply_events(self, events: Sequence[Event]) -> None:
        """Fold events into the tables."""

    async def upsert_tasks(self, tasks: Sequence[Task]) -> None:
        """Mirror Tasks as they stand."""


class HistoryMirror:
    """Applies events to PostgreSQL. When the database is unavailable, only this group falls behind.

    Args:
        history: the database.
        reader: the group.
        list_tasks: pages of all Tasks as Kubernetes objects.
        may_read: waits while this process is not sure to be the leader.
    """

    def __init__(
        self,
        history: History,
        reader: StreamReader,
        list_tasks: Callable[[], AsyncIterator[Page]],
        may_read: Callable[[], Awaitable[None]],
    ) -> None:
        self._history = history
        self._reader = reader
        self._list_tasks = list_tasks
        self._may_read = may_read
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._errors = ConsecutiveErrors("history")

    def mirror_again(self, why: str) -> asyncio.Future[None]:
        """Mirror all Tasks that still exist, because events may be missing. The future is done when they are stored."""
        if not self._wanted.is_set():
            log.warning("mirroring_again", why=why)
        mirrored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mirrored)
        self._wanted.set()
        return mirrored

    def loops(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs until cancelled."""
        reading = consume_group(
            self._reader, self._take, self.mirror_again, self._may_read, gather_seconds=GATHER_SECONDS
        )
        return reading, self._mirror_when_wanted()

    async def _take(self, events: tuple[Event, ...], broken: tuple[str, ...]) -> None:
        self._errors.check()
        await isolate_failures(events, self._apply, self._left_out)
        dependency_health.succeeded(Dependency.POSTGRES)
        await self._reader.acknowledge([*(event.id for event in events), *broken])

    async def _apply(self, events: Sequence[Event]) -> None:
        await self._history.apply_events(events)
        self._errors.clear()

    def _left_out(self, event: Event, error: Exception) -> None:
        """The history lacks this event; the log says so."""
        self._errors.record(error, uid=event.uid, attempt=event.attempt, event_kind=event.kind, id=event.id)

    async def _mirror_when_wanted(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            # A later request may be about something that this list does not show yet.
            asked = len(self._waiting)
            try:
                count = await self._mirror()
            except TaskflowError as error:
                dependency_health.failed(error)
                self._wanted.set()
                await asyncio.sleep(RETRY_SECONDS)
            else:
                log.info("mirrored", tasks=count)
                done, self._waiting = self._waiting[:asked], self._waiting[asked:]
                for mirrored in done:
                    if not mirrored.done():
                        mirrored.set_result(None)

    async def _mirror(self) -> int:
        count = 0
        async for page in self._list_tasks():
            tasks: list[Task] = []
            for body in page.items:
                try:
                    tasks.append(Task.from_object(body))
                except ValidationError as error:
                    log.error("task_unreadable", name=body["metadata"]["name"], error=str(error))  # noqa: TRY400
            await isolate_failures(tasks, self._upsert, lambda task, error: self._errors.record(error, uid=task.uid))
            count += len(tasks)
        return count

    async def _upsert(self, tasks: Sequence[Task]) -> None:
        await self._history.upsert_tasks(tasks)
        self._errors.clear()
