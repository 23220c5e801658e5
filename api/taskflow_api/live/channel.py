"""One watch for each namespace, whose changes all listeners share. Authorisation happens before a listener joins."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from taskflow_api.live.changes import Change, change_from
from taskflow_core.errors import Conflict, TaskflowError, Unavailable
from taskflow_core.kube.client import Requests, tasks_path
from taskflow_core.telemetry.logs import get_logger

MAX_CHANGES = 8192
"""How many changes a listener may be behind. Each takes about 1 KB."""
JOIN_SECONDS = 10.0
COALESCE_SECONDS = 0.2
"""After a restart, all listeners reconnect almost at once from different positions. One watch serves them all."""
MIN_BACKOFF, MAX_BACKOFF = 0.2, 5.0
_log = get_logger(__name__)


class Watches(Requests, Protocol):
    """The part of `KubeClient` that a channel needs."""

    def watch(self, path: str, version: str, field_selector: str = "") -> AsyncIterator[Sequence[dict[str, Any]]]:
        """See `KubeClient.watch`."""


class Gone(Exception):  # noqa: N818 - named after HTTP 410
    """Changes after the requested position are no longer available."""


class Listener:
    """An event that is set when there are changes, of all Tasks or of the one called `name`."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.woken = asyncio.Event()


class Channel:
    """The latest changes of the Tasks of a namespace, from one watch for all listeners.

    Positions are resourceVersions, which are comparable and grow across the whole cluster (KEP-5504). So a position is
    valid for every replica of the API and after a restart, for as long as the API server keeps its changes (at least 5
    minutes). If a listener joins at a position before the buffered changes, the watch restarts from there.

    Args:
        kube: Watches with the API's own identity.
        namespace: The namespace of the Tasks.
        max_changes: How many changes to buffer.
    """

    def __init__(self, kube: Watches, namespace: str, max_changes: int = MAX_CHANGES) -> None:
        self._kube = kube
        self._path = tasks_path(namespace)
        self._namespace = namespace
        self._max_changes = max_changes
        self._changes: deque[Change] = deque()
        self._floor = 0
        self._gone = -1
        self._restart_at: int | None = None
        self._restart = asyncio.Event()
        self._progress = asyncio.Event()
        self._listeners: set[Listener] = set()
        self.position: int | None = None
        """All changes up to this resourceVersion are known; None before the first answer of the API server."""

    @property
    def idle(self) -> bool:
        """Whether there are no listeners."""
        return not self._listeners

    @contextmanager
    def listening(self, name: str | None = None) -> Iterator[Listener]:
        """Register a listener for changes of all Tasks, or of one."""
        listener = Listener(name)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def wake_all(self) -> None:
        """Wake all listeners."""
        for listener in self._listeners:
            listener.woken.set()

    async def join(self, after: int | None) -> int:
        """The position to start from: `after` once all changes since then are buffered, or the current one if None.

        Raises:
            Gone: changes after that position are no longer available.
            Unavailable: the API server does not answer.
        """
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                while self.position is None:
                    await self._next_progress()
                if after is None:
                    return self.position
                if after > self.position and after > await self._head():
                    # The position is from another cluster, or from before a restore of a backup.
                    raise Gone
                while after < self._floor:
                    if after <= self._gone:
                        raise Gone
                    self._restart_from(after)
                    self._restart.set()
                    await self._next_progress()
        except TimeoutError:
            raise Unavailable(f"the watch of namespace {self._namespace} has not started") from None
        return after

    def _restart_from(self, version: int) -> None:
        self._restart_at = version if self._restart_at is None else min(self._restart_at, version)

    async def _next_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    def after(self, position: int) -> Sequence[Change]:
        """The changes after a position, in order.

        Raises:
            Gone: some of them are no longer buffered.
        """
        if position < self._floor:
            raise Gone
        start = bisect_right(self._changes, position, key=lambda each: each.version)
        return tuple(islice(self._changes, start, None))

    async def run(self) -> None:
        """Watch until cancelled."""
        backoff = MIN_BACKOFF
        while True:
            error = await self._until_restart()
            if error is None:
                backoff = MIN_BACKOFF
                # Avoids a busy loop if the server ends each watch at once.
                await asyncio.sleep(MIN_BACKOFF)
                continue
            _log.warning("watch_ended", namespace=self._namespace, error=str(error), retry_seconds=backoff)
            # Jitter: otherwise all replicas would reconnect to the API server at the same moment.
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311
            backoff = min(backoff * 2, MAX_BACKOFF)

    async def _until_restart(self) -> TaskflowError | None:
        """Run one watch to its end, or until a listener needs an earlier start."""
        watching = asyncio.create_task(self._once())
        restart = asyncio.create_task(self._restart.wait())
        try:
            await asyncio.wait((watching, restart), return_when=asyncio.FIRST_COMPLETED)
            if self._restart.is_set():
                await asyncio.sleep(COALESCE_SECONDS)
        finally:
            for task in (watching, restart):
                task.cancel()
            await asyncio.gather(watching, restart, return_exceptions=True)
        self._restart.clear()
        return None if watching.cancelled() else watching.result()

    async def _once(self) -> TaskflowError | None:
        restart_at, self._restart_at = self._restart_at, None
        previous = self._changes, self._floor, self.position
        try:
            if self.position is None:
                self._floor = self.position = await self._head()
            await self._follow(self.position if restart_at is None else restart_at, restarted=restart_at is not None)
        except Conflict as error:
            if restart_at is None:
                # etcd compacted the changes while there was no watch. Listeners must list again.
                self._gone, self._changes = self.position or 0, deque()
                self._floor = self.position = await self._head_or(self._gone)
                self.wake_all()
                return error
            self._gone = max(self._gone, restart_at)
            self._changes, self._floor, self.position = previous
            self._progress.set()
            self.wake_all()
        except TaskflowError as error:
            if restart_at is not None:
                self._restart_from(restart_at)
            return error
        except Exception as error:  # noqa: BLE001 - the watch must go on
            # Without a retry, listeners would wait forever.
            _log.exception("watch_failed", namespace=self._namespace)
            return Unavailable(str(error))
        return None

    async def _follow(self, version: int, *, restarted: bool) -> None:
        async for events in self._kube.watch(self._path, str(version)):
            if not events:
                if restarted:
                    self._changes, self._floor, self.position = deque(), version, version
                    restarted = False
                self._progress.set()
                continue
            names = {name for event in events if (name := self._add(event)) is not None}
            for listener in self._listeners:
                if listener.name is None or listener.name in names:
                    listener.woken.set()
            # Lets listeners run during a long burst.
            await asyncio.sleep(0)

    def _add(self, event: dict[str, Any]) -> str | None:
        body = event["object"]
        version = int(body["metadata"]["resourceVersion"])
        name: str | None = None
        if event["type"] != "BOOKMARK":
            try:
                self._changes.append(change_from(event))
                name = body["metadata"]["name"]
            except (KeyError, ValueError) as error:
                # One unreadable object must not hide the others.
                _log.warning("task_unreadable", task=body["metadata"].get("name"), error=str(error))
            if len(self._changes) > self._max_changes:
                self._floor = self._changes.popleft().version
        self.position = version
        return name

    async def _head(self) -> int:
        """The current resourceVersion of the API server."""
        page = await self._kube.request("GET", self._path, params={"limit": "1"})
        return int(page["metadata"]["resourceVersion"])

    async def _head_or(self, default: int) -> int:
        try:
            return await self._head()
        except TaskflowError:
            return default
