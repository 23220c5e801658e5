from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from taskflow_api.live.channel import Channel, Watches
from taskflow_api.metrics import STREAMS
from taskflow_api.problems import ProblemError
from taskflow_core.errors import Unavailable

MAX_CHANNELS = 200
"""Namespaces that are watched at a time: each is a connection to the API server."""
LINGER_SECONDS = 60.0
"""How long a watch goes on without listeners, who may come back."""
RETRY_AFTER_SECONDS = 10


class Hub:
    """One channel for each namespace that somebody listens to, and how many streams each caller may have open.

    Args:
        kube: for the watches.
        per_caller: streams that one caller may have open.
        total: streams of all callers.
    """

    def __init__(self, kube: Watches, per_caller: int, total: int) -> None:
        self._kube = kube
        self._per_caller = per_caller
        self._total = total
        self._channels: dict[str, tuple[Channel, asyncio.Task[None]]] = {}
        self._reapers: set[asyncio.Task[None]] = set()
        self._open: Counter[str] = Counter()
        self.closing = False
        """Every stream is to end."""

    @contextmanager
    def admitted(self, caller: str) -> Iterator[None]:
        """Count a stream while it is open.

        Raises:
            ProblemError: 429, the caller has too many; 503, all have.
        """
        if self._open[caller] >= self._per_caller:
            raise ProblemError(
                429,
                f"{caller} has {self._per_caller} streams open, which is the most; close one",
                code="too-many-streams",
                retry_after=str(RETRY_AFTER_SECONDS),
            )
        if self._open.total() >= self._total:
            raise ProblemError(503, "this server has no room for another stream; try again")
        self._open[caller] += 1
        STREAMS.inc()
        try:
            yield
        finally:
            STREAMS.dec()
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    @asynccontextmanager
    async def channel(self, namespace: str) -> AsyncIterator[Channel]:
        """The channel of a namespace, watched as long as somebody holds it and a minute longer.

        Raises:
            Unavailable: too many namespaces are watched.
        """
        found = self._channels.get(namespace)
        if found is None:
            if len(self._channels) >= MAX_CHANNELS:
                raise Unavailable(f"{MAX_CHANNELS} namespaces are watched already")
            made = Channel(self._kube, namespace)
            found = self._channels[namespace] = made, asyncio.create_task(made.run(), name=f"watch {namespace}")
        channel, _ = found
        try:
            yield channel
        finally:
            if channel.idle and not self.closing:
                reaper = asyncio.create_task(self._reap(namespace, channel))
                self._reapers.add(reaper)
                reaper.add_done_callback(self._reapers.discard)

    async def _reap(self, namespace: str, channel: Channel) -> None:
        await asyncio.sleep(LINGER_SECONDS)
        found = self._channels.get(namespace)
        if channel.idle and found is not None and found[0] is channel:
            del self._channels[namespace]
            found[1].cancel()

    def close(self) -> None:
        """End all streams: their clients come back to another replica, or to the next process."""
        self.closing = True
        for channel, _ in self._channels.values():
            channel.wake_all()

    async def stop(self) -> None:
        """End all watches."""
        self.close()
        tasks = [task for _, task in self._channels.values()] + list(self._reapers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._channels.clear()
