"""Deletes finished Tasks."""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, NotFound, TaskflowError
from taskflow_core.kube.client import KubeClient, delete_options, tasks_path
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.tasks.ports import StoredEnds

log = get_logger(__name__)
SLICE = 100
AT_ONCE = 4
TICK_SECONDS = 1.0
RETRY = timedelta(seconds=10)


@dataclass(frozen=True, order=True, slots=True)
class Expiry:
    """A finished Task and when it may be deleted."""

    due: datetime
    namespace: str
    name: str
    uid: str
    surplus: bool = False
    """Its namespace or its owner keeps too many, so its time to live does not matter."""


def may_go(entry: Expiry, due: datetime | None, now: datetime) -> bool:
    """Whether a finished Task may be deleted, as it was just read.

    Args:
        entry: why it is due.
        due: when its time to live is over; None if it has none.
        now: the time.
    """
    return entry.surplus or (due is not None and due <= now)


class Retention:
    """Deletes finished Tasks when their time to live is over, or when a namespace keeps too many.

    A Task is deleted only if the history has its end and nobody needs it any more. What is due follows from the
    resources, so a restart loses nothing.

    Args:
        kube: the API server.
        history: knows which ends are stored.
        default_seconds: time to live of Tasks that set none; None keeps them.
        per_namespace: finished Tasks that a namespace keeps; None is without a bound. The oldest are deleted first.
        now: the time.
    """

    def __init__(
        self,
        kube: KubeClient,
        history: StoredEnds,
        *,
        default_seconds: int | None,
        per_namespace: int | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._history = history
        self._default = default_seconds
        self._per_namespace = per_namespace
        self._now = now
        self.needed: list[Callable[[Task], bool]] = []
        """Checks of the controllers that create Tasks, such as whether an owner has recorded this one. A Task that one
        of them needs stays."""
        self._due: list[Expiry] = []
        self._known: dict[str, Expiry] = {}
        self._times: dict[str, datetime] = {}
        """By uid, when the time to live is over, as last read."""
        self._kept: dict[str, list[Expiry]] = defaultdict(list)
        """By namespace, oldest end first; without those that are due because the namespace keeps too many."""

    def finished(self, task: Task) -> None:
        """Record a Task that finished, or that its time to live was changed since."""
        end = task.status.completion_time
        if not task.finished or end is None:
            return
        seconds = task.spec.ttl_seconds_after_finished
        seconds = self._default if seconds is None else seconds
        if seconds is None:
            self._times.pop(task.uid, None)
        elif self._times.get(task.uid) != (due := end + timedelta(seconds=seconds)):
            self._times[task.uid] = due
            heapq.heappush(self._due, Expiry(due, task.namespace, task.name, task.uid))
        if task.uid not in self._known and (seconds is not None or self._per_namespace is not None):
            self._keep(Expiry(end, task.namespace, task.name, task.uid))

    def _keep(self, entry: Expiry) -> None:
        self._known[entry.uid] = entry
        if self._per_namespace is None:
            return
        kept = self._kept[entry.namespace]
        # A list is in the order of names, not of ends.
        insort(kept, entry)
        if len(kept) > self._per_namespace:
            heapq.heappush(self._due, replace(kept.pop(0), surplus=True))

    def expire(self, entry: Expiry) -> None:
        """Delete a finished Task of which its owner keeps too many, whatever its time to live."""
        self._known.setdefault(entry.uid, entry)
        heapq.heappush(self._due, replace(entry, surplus=True))

    def known(self) -> Collection[str]:
        """Uids of the finished Tasks that count."""
        return self._known.keys()

    def forget(self, uid: str) -> None:
        """The Task no longer exists, so it does not count."""
        self._times.pop(uid, None)
        entry = self._known.pop(uid, None)
        if entry is None:
            return
        kept = self._kept.get(entry.namespace, [])
        place = bisect_left(kept, entry)
        if kept[place : place + 1] == [entry]:
            del kept[place]
        if not kept:
            self._kept.pop(entry.namespace, None)

    async def run(self) -> None:
        """Delete what is due, until cancelled."""
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
            stored = await self._history.stored([entry.uid for entry in entries])
        except TaskflowError as error:
            dependency_health.failed(error)
            stored = set()
        slots = asyncio.Semaphore(AT_ONCE)
        settled = await asyncio.gather(*(self._delete_one(entry, slots) for entry in entries if entry.uid in stored))
        done = {uid for uid in settled if uid is not None}
        for entry in entries:
            if entry.uid not in done:
                # Not in the history yet, needed, or not deleted: tried again later.
                heapq.heappush(self._due, replace(entry, due=self._now() + RETRY))

    async def _delete_one(self, entry: Expiry, slots: asyncio.Semaphore) -> str | None:
        """Delete a Task, unless it may not go yet. Returns its uid if there is nothing left to do now."""
        path = tasks_path(entry.namespace, entry.name)
        async with slots:
            try:
                body = await self._kube.request("GET", path)
                meta = body["metadata"]
                if meta["uid"] == entry.uid:
                    task = self._read(body)
                    if not may_go(entry, self._times.get(entry.uid), self._now()):
                        return entry.uid
                    if task is not None and any(needs(task) for needs in self.needed):
                        return None
                    # Only as it was just read: if it changed in between, it is looked at again.
                    options = delete_options(uid=entry.uid, resourceVersion=meta["resourceVersion"])
                    await self._kube.request("DELETE", path, options)
            except NotFound:
                pass
            except Conflict:
                return None
            except TaskflowError as error:
                dependency_health.failed(error)
                return None
        self.forget(entry.uid)
        return entry.uid

    def _read(self, body: dict[str, Any]) -> Task | None:
        try:
            task = Task.from_object(body)
        except ValidationError as error:
            log.error("task_unreadable", name=body["metadata"]["name"], error=str(error))  # noqa: TRY400
            return None
        self.finished(task)
        return task
