from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pydantic import ValidationError

from taskflow_core.domain.phases import FINISHED_SELECTOR
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Invalid, NotFound, TaskflowError
from taskflow_core.kube.client import JSON_PATCH, KubeClient, tasks_path
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator import outage

log = get_logger(__name__)
SLICE = 100
AT_ONCE = 8
TICK_SECONDS = 1.0
LIST_SECONDS = 600.0
RETRY = timedelta(seconds=10)


class PastTasks(Protocol):
    """The history. Raises `Unavailable`."""

    async def stored(self, uids: Sequence[str]) -> set[str]:
        """Those of the uids whose end is in the history."""


@dataclass(frozen=True, order=True)
class Expiry:
    """A finished Task and when it may be deleted."""

    due: datetime
    namespace: str
    name: str
    uid: str


class Retention:
    """Deletes finished Tasks when their time to live is over, or when a namespace keeps too many; never one that the history lacks.

    What is due is known from the resources, so a restart forgets nothing.

    Args:
        kube: the API server.
        past: the history.
        default_seconds: time to live of Tasks that say none; None keeps them.
        per_namespace: finished Tasks that a namespace keeps; None is without a bound. The oldest go first.
    """

    def __init__(
        self,
        kube: KubeClient,
        past: PastTasks,
        *,
        default_seconds: int | None,
        per_namespace: int | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._past = past
        self._default = default_seconds
        self._per_namespace = per_namespace
        self._now = now
        self._due: list[Expiry] = []
        self._known: dict[str, Expiry] = {}
        self._kept: dict[str, list[Expiry]] = defaultdict(list)
        """By namespace, oldest end first; what is due for its namespace's sake is no longer in it."""

    def finished(self, task: Task) -> None:
        """Take note of a Task that finished."""
        end = task.status.completion_time
        if not task.finished or end is None or task.uid in self._known:
            return
        seconds = task.spec.ttl_seconds_after_finished
        seconds = self._default if seconds is None else seconds
        if seconds is None and self._per_namespace is None:
            return
        entry = Expiry(end, task.namespace, task.name, task.uid)
        self._known[task.uid] = entry
        if seconds is not None:
            heapq.heappush(self._due, Expiry(end + timedelta(seconds=seconds), task.namespace, task.name, task.uid))
        if self._per_namespace is not None:
            kept = self._kept[task.namespace]
            # A list shows them in the order of their names.
            insort(kept, entry)
            if len(kept) > self._per_namespace:
                heapq.heappush(self._due, kept.pop(0))

    def _forget(self, uid: str) -> None:
        """It exists no more, so it does not count any longer."""
        entry = self._known.pop(uid, None)
        if entry is None:
            return
        kept = self._kept[entry.namespace]
        place = bisect_left(kept, entry)
        if kept[place : place + 1] == [entry]:
            del kept[place]
        if not kept:
            del self._kept[entry.namespace]

    def loops(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs until cancelled."""
        return self._list_for_ever(), self._delete_for_ever()

    async def _list_for_ever(self) -> None:
        while True:
            try:
                await self._list()
            except TaskflowError as error:
                outage.away(error)
                await asyncio.sleep(RETRY.total_seconds())
            else:
                await asyncio.sleep(LIST_SECONDS)

    async def _list(self) -> None:
        gone = set(self._known)
        async for page in self._kube.list_pages(tasks_path(), FINISHED_SELECTOR):
            for body in page:
                gone.discard(body["metadata"]["uid"])
                try:
                    task = Task.from_object(body)
                except ValidationError as error:
                    log.error("task_unreadable", name=body["metadata"]["name"], error=str(error))  # noqa: TRY400
                    continue
                self.finished(task)
                if task.status.observed_generation < task.generation:
                    await self._observe(task)
        # What somebody else deleted.
        for uid in gone:
            self._forget(uid)

    async def _observe(self, task: Task) -> None:
        """Its specification changed after its end, which changes nothing; but `kubectl wait` wants that said."""
        places = ["", *(f"/conditions/{number}" for number in range(len(task.status.conditions)))]
        paths = [f"/status{place}/observedGeneration" for place in places]
        patch: list[dict[str, object]] = [
            {"op": "test", "path": "/metadata/uid", "value": task.uid},
            *({"op": "add", "path": path, "value": task.generation} for path in paths),
        ]
        try:
            await self._kube.request(
                "PATCH", tasks_path(task.namespace, task.name) + "/status", patch, content_type=JSON_PATCH
            )
        except (NotFound, Conflict, Invalid) as error:
            log.info("observed_generation_not_written", uid=task.uid, error=str(error))

    async def _delete_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            while due := self._take():
                await self._delete(due)

    def _take(self) -> list[Expiry]:
        now = self._now()
        found: list[Expiry] = []
        while self._due and self._due[0].due <= now and len(found) < SLICE:
            entry = heapq.heappop(self._due)
            if entry.uid in self._known:
                found.append(entry)
        return found

    async def _delete(self, entries: list[Expiry]) -> None:
        try:
            stored = await self._past.stored([entry.uid for entry in entries])
        except TaskflowError as error:
            outage.away(error)
            stored = set()
        slots = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._delete_one(entry, slots) for entry in entries if entry.uid in stored))
        for entry in entries:
            if entry.uid in self._known:
                # Not in the history yet, or not deleted: the resource is the only record of it, so it stays.
                heapq.heappush(self._due, Expiry(self._now() + RETRY, entry.namespace, entry.name, entry.uid))

    async def _delete_one(self, entry: Expiry, slots: asyncio.Semaphore) -> None:
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": entry.uid}}
        async with slots:
            try:
                await self._kube.request("DELETE", tasks_path(entry.namespace, entry.name), options)
            except (NotFound, Conflict):
                pass
            except TaskflowError as error:
                outage.away(error)
                return
        self._forget(entry.uid)
