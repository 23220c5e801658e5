"""Consumer group `pg` of the event streams: mirrors events and Tasks into PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Protocol

from pydantic import ValidationError

from taskflow_core.batching import isolate_failures
from taskflow_core.domain.events import EntryId, Event
from taskflow_core.domain.task import Task
from taskflow_core.errors import Dependency, TaskflowError
from taskflow_core.kube.client import Page
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import ConsecutiveErrors

log = get_logger(__name__)
RETRY_SECONDS = 5.0
SEPARATE_LISTS = 8
"""Namespaces whose Tasks are listed one by one."""


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
        acknowledge: acknowledges entries of the group.
        list_tasks: pages of all Tasks of a namespace, or of all namespaces, as Kubernetes objects.
        namespaces: whose marks say what has to be mirrored, also after a restart.
    """

    def __init__(
        self,
        history: History,
        acknowledge: Callable[[Sequence[EntryId]], Awaitable[None]],
        list_tasks: Callable[[str | None], AsyncIterator[Page]],
        namespaces: Namespaces,
    ) -> None:
        self._history = history
        self._acknowledge = acknowledge
        self._list_tasks = list_tasks
        self._namespaces = namespaces
        self._wanted: set[str] = set()
        self._arrived = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._errors = ConsecutiveErrors("history")

    def mirror_again(self, namespaces: Collection[str]) -> asyncio.Future[None]:
        """Mirror all Tasks of namespaces that still exist, because events may be missing. The future is done when they
        are stored.
        """
        log.info("mirroring_again", namespaces=len(namespaces), first=min(namespaces, default=""))
        mirrored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mirrored)
        self._wanted |= set(namespaces)
        self._arrived.set()
        return mirrored

    async def run(self) -> None:
        """Mirror what is wanted, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            wanted, self._wanted = self._wanted, set()
            # A later request may be about something that this list does not show yet.
            asked = len(self._waiting)
            marks = self._namespaces.marks_of(wanted)
            try:
                count = await self._mirror(wanted)
                await self._namespaces.mirrored(marks)
            except TaskflowError as error:
                dependency_health.failed(error)
                self._wanted |= wanted
                self._arrived.set()
                await asyncio.sleep(RETRY_SECONDS)
            else:
                log.info("mirrored", tasks=count, namespaces=len(wanted))
                done, self._waiting = self._waiting[:asked], self._waiting[asked:]
                for mirrored in done:
                    if not mirrored.done():
                        mirrored.set_result(None)

    async def take(self, events: tuple[Event, ...], refused: tuple[EntryId, ...]) -> None:
        """Store a batch.

        Args:
            events: in any order; some may have been stored before.
            refused: entries that are no events.

        Raises:
            Unavailable: nothing is acknowledged; come again with the same ones.
        """
        self._errors.check()
        await isolate_failures(events, self._apply, self._left_out)
        dependency_health.succeeded(Dependency.POSTGRES)
        await self._acknowledge([*(event.entry for event in events), *refused])

    async def _apply(self, events: Sequence[Event]) -> None:
        await self._history.apply_events(events)
        self._errors.clear()

    def _left_out(self, event: Event, error: Exception) -> None:
        """The history lacks this event; the log says so."""
        if isinstance(error, TaskflowError):
            # The database refuses statements, whatever they are about.
            self._errors.record(error)
            return
        self._errors.record(error, uid=event.uid, attempt=event.attempt, event_kind=event.kind, id=event.id)

    async def _mirror(self, namespaces: Collection[str]) -> int:
        count = 0
        # One list of all is cheaper than many of some.
        for namespace in sorted(namespaces) if len(namespaces) <= SEPARATE_LISTS else [None]:
            async for page in self._list_tasks(namespace):
                count += await self._store(page)
        return count

    async def _store(self, page: Page) -> int:
        tasks: list[Task] = []
        for body in page.items:
            try:
                tasks.append(Task.from_object(body))
            except ValidationError as error:
                log.error("task_unreadable", name=body["metadata"]["name"], error=str(error))  # noqa: TRY400
        await isolate_failures(tasks, self._upsert, lambda task, error: self._errors.record(error, uid=task.uid))
        return len(tasks)

    async def _upsert(self, tasks: Sequence[Task]) -> None:
        await self._history.upsert_tasks(tasks)
        self._errors.clear()
