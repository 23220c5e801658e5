from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

from taskflow_api.live.changes import Change, change
from taskflow_core.errors import Conflict, TaskflowError, Unavailable
from taskflow_core.kube.client import Requests, tasks_path
from taskflow_core.telemetry.logs import get_logger

KEPT_CHANGES = 8192
"""How far a listener may be behind, about 1 KB each."""
JOIN_SECONDS = 10.0
COALESCE_SECONDS = 0.2
"""After a restart all listeners come back within moments, each with a place of its own: one watch goes back for all of them."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
_log = get_logger(__name__)


class Watches(Requests, Protocol):
    """What is needed of a `KubeClient`."""

    def watch(self, path: str, version: str, field_selector: str = "") -> AsyncIterator[Sequence[dict[str, Any]]]:
        """See `KubeClient.watch`."""


class Gone(Exception):  # noqa: N818 - named for the thing, HTTP's 410
    """What happened in between is no longer known."""


class Listener:
    """Wakes whoever waits for changes; `name` is of the one Task that it is about."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.woken = asyncio.Event()


class Channel:
    """The latest changes of a namespace's Tasks, by one watch for all listeners.

    A place in it is a resourceVersion: one number for the whole cluster, which grows and may be compared (KEP-5504). So a
    place holds for every replica of the API and after a restart, for as long as the API server remembers (5 minutes at
    least): the watch is begun again further back when a listener comes with a place that lies before all that is kept.

    Args:
        kube: for the watch, as the API itself; listeners are authorised before they come here.
        namespace: whose Tasks.
        kept: changes that are kept.
    """

    def __init__(self, kube: Watches, namespace: str, kept: int = KEPT_CHANGES) -> None:
        self._kube = kube
        self._path = tasks_path(namespace)
        self._namespace = namespace
        self._kept = kept
        self._changes: deque[Change] = deque()
        self._floor = 0
        self._gone = -1
        self._wanted: int | None = None
        self._asked = asyncio.Event()
        self._moved = asyncio.Event()
        self._listeners: set[Listener] = set()
        self.position: int | None = None
        """All changes up to this one are known; None before the first answer of the API server."""

    @property
    def idle(self) -> bool:
        """Nobody listens."""
        return not self._listeners

    @contextmanager
    def listening(self, name: str | None = None) -> Iterator[Listener]:
        """Be woken by changes of all Tasks, or of one."""
        listener = Listener(name)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def wake_all(self) -> None:
        """Let all listeners look."""
        for listener in self._listeners:
            listener.woken.set()

    async def join(self, after: int | None) -> int:
        """The place to begin at: `after`, if all that happened since can be told, else where the channel is.

        Raises:
            Gone: it cannot.
            Unavailable: the API server does not answer.
        """
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                while self.position is None:
                    await self._next_move()
                if after is None:
                    return self.position
                if after > self.position and after > await self._head():
                    # Of another cluster, or of one that was restored from a backup.
                    raise Gone
                while after < self._floor:
                    if after <= self._gone:
                        raise Gone
                    self._want(after)
                    self._asked.set()
                    await self._next_move()
        except TimeoutError:
            raise Unavailable(f"the watch of namespace {self._namespace} has not begun") from None
        return after

    def _want(self, version: int) -> None:
        self._wanted = version if self._wanted is None else min(self._wanted, version)

    async def _next_move(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def after(self, place: int) -> Sequence[Change]:
        """The changes after a place, in order.

        Raises:
            Gone: some of them are no longer kept.
        """
        if place < self._floor:
            raise Gone
        start = bisect_right(self._changes, place, key=lambda each: each.version)
        return tuple(islice(self._changes, start, None))

    async def run(self) -> None:
        """Watch until cancelled."""
        pause = FIRST_PAUSE
        while True:
            error = await self._until_asked_back()
            if error is None:
                pause = FIRST_PAUSE
                # Against a server that ends each watch at once.
                await asyncio.sleep(FIRST_PAUSE)
                continue
            _log.warning("watch_ended", namespace=self._namespace, error=str(error), again_in_seconds=pause)
            # Spread, or all replicas that lost the same API server come back in the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _until_asked_back(self) -> TaskflowError | None:
        """One watch, to its end or until a listener needs an earlier beginning."""
        watching = asyncio.create_task(self._once())
        asked = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait((watching, asked), return_when=asyncio.FIRST_COMPLETED)
            if self._asked.is_set():
                await asyncio.sleep(COALESCE_SECONDS)
        finally:
            for task in (watching, asked):
                task.cancel()
            await asyncio.gather(watching, asked, return_exceptions=True)
        self._asked.clear()
        return None if watching.cancelled() else watching.result()

    async def _once(self) -> TaskflowError | None:
        back, self._wanted = self._wanted, None
        former = self._changes, self._floor, self.position
        try:
            if self.position is None:
                self._floor = self.position = await self._head()
            await self._follow(self.position if back is None else back, back=back is not None)
        except Conflict as error:
            if back is None:
                # Compacted in etcd while there was no watch: listeners have to read everything again.
                self._gone, self._changes = self.position or 0, deque()
                self._floor = self.position = await self._head_or(self._gone)
                self.wake_all()
                return error
            self._gone = max(self._gone, back)
            self._changes, self._floor, self.position = former
            self._moved.set()
            self.wake_all()
        except TaskflowError as error:
            if back is not None:
                self._want(back)
            return error
        except Exception as error:  # noqa: BLE001 - see below
            # Whoever listens would otherwise wait for ever.
            _log.exception("watch_failed", namespace=self._namespace)
            return Unavailable(str(error))
        return None

    async def _follow(self, version: int, *, back: bool) -> None:
        async for events in self._kube.watch(self._path, str(version)):
            if not events:
                if back:
                    self._changes, self._floor, self.position = deque(), version, version
                    back = False
                self._moved.set()
                continue
            names = {name for event in events if (name := self._take(event)) is not None}
            for listener in self._listeners:
                if listener.name is None or listener.name in names:
                    listener.woken.set()
            # A long burst must not hold up those who listen.
            await asyncio.sleep(0)

    def _take(self, event: dict[str, Any]) -> str | None:
        body = event["object"]
        version = int(body["metadata"]["resourceVersion"])
        name: str | None = None
        if event["type"] != "BOOKMARK":
            try:
                self._changes.append(change(event))
                name = body["metadata"]["name"]
            except (KeyError, ValueError) as error:
                # One object that nobody thought of must not hide the others.
                _log.warning("task_unreadable", task=body["metadata"].get("name"), error=str(error))
            if len(self._changes) > self._kept:
                self._floor = self._changes.popleft().version
        self.position = version
        return name

    async def _head(self) -> int:
        """The API server's present resourceVersion."""
        page = await self._kube.request("GET", self._path, params={"limit": "1"})
        return int(page["metadata"]["resourceVersion"])

    async def _head_or(self, otherwise: int) -> int:
        try:
            return await self._head()
        except TaskflowError:
            return otherwise
