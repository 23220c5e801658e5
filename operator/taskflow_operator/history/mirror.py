from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Protocol

from pydantic import ValidationError

from taskflow_core.domain.events import Event
from taskflow_core.domain.task import Task
from taskflow_core.errors import Dependency, TaskflowError, Unavailable
from taskflow_core.kube.client import Page
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.stream_group import consume_group
from taskflow_operator.runtime.supervisor import ConsecutiveErrors

log = get_logger(__name__)
RETRY_SECONDS = 5.0
GATHER_SECONDS = 0.25
"""History may be so much later than the resource."""


class History(Protocol):
    """The database. Methods raise `Unavailable` and may be repeated."""

    async def apply_events(self, events: Sequence[Event]) -> None:
        """Fold events into the tables."""

    async def upsert_tasks(self, tasks: Sequence[Task]) -> None:
        """Mirror Tasks as they stand."""


class HistoryMirror:
    """Stream group `pg`: folds events into PostgreSQL. When the database is away only this group falls behind.

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
        """Mirror all Tasks that still exist, because events may be missing; the future tells when that is done."""
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
        try:
            await self._history.apply_events(events)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001 - one of them is at fault: find it, keep the others
            await self._one_by_one(events)
        else:
            self._errors.clear()
        dependency_health.succeeded(Dependency.POSTGRES)
        await self._reader.acknowledge([*(event.id for event in events), *broken])

    async def _one_by_one(self, events: Sequence[Event]) -> None:
        for event in events:
            try:
                await self._history.apply_events([event])
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - left out of the history, and said
                self._errors.record(error, uid=event.uid, attempt=event.attempt, event_kind=event.kind, id=event.id)
            else:
                self._errors.clear()

    async def _mirror_when_wanted(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            # Who asks from now on may have seen what this list does not show yet.
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
            count += await self._upsert(tasks)
        return count

    async def _upsert(self, tasks: Sequence[Task]) -> int:
        try:
            await self._history.upsert_tasks(tasks)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - one of them is at fault: find it, keep the others
            if len(tasks) == 1:
                self._errors.record(error, uid=tasks[0].uid)
                return 0
            return sum([await self._upsert([task]) for task in tasks])
        self._errors.clear()
        return len(tasks)
