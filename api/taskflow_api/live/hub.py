"""All open streams of this process: a channel for each watched namespace, and a limit for each caller."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from taskflow_api.http.problems import ProblemError
from taskflow_api.live.channel import Channel, Watches
from taskflow_api.metrics import STREAMS
from taskflow_core.errors import Unavailable

MAX_CHANNELS = 200
"""How many namespaces may be watched at a time. Each takes a connection to the API server."""
LINGER_SECONDS = 60.0
"""How long a watch continues without listeners, which often reconnect."""
RETRY_AFTER_SECONDS = 10


class Hub:
    """A channel for each namespace with listeners, and the number of open streams of each caller.

    Args:
        kube: Watches the namespaces.
        per_caller: Streams that one caller may have open.
        total: Streams that all callers together may have open.
    """

    def __init__(self, kube: Watches, per_caller: int, total: int) -> None:
        self._kube = kube
        self._per_caller = per_caller
        self._total = total
        self._channels: dict[str, tuple[Channel, asyncio.Task[None]]] = {}
        self._reapers: set[asyncio.Task[None]] = set()
        self._open: Counter[str] = Counter()
        self.closing = False
        """Whether the process is shutting down and all streams must end."""

    @contextmanager
    def admitted(self, caller: str) -> Iterator[None]:
        """Count a stream while it is open.

        Raises:
            ProblemError: 429, the caller has too many; 503, all callers together have too many.
        """
        if self._open[caller] >= self._per_caller:
            raise ProblemError(
                429,
                f"{caller} already has {self._per_caller} streams open, the limit; close one",
                code="too-many-streams",
                retry_after=str(RETRY_AFTER_SECONDS),
            )
        if self._open.total() >= self._total:
            raise ProblemError(503, "this server has too many open streams; try again")
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
        """The channel of a namespace. It is watched while it is in use and a minute longer.

        Raises:
            Unavailable: too many namespaces are being watched.
        """
        found = self._channels.get(namespace)
        if found is None:
            if len(self._channels) >= MAX_CHANNELS:
                raise Unavailable(f"{MAX_CHANNELS} namespaces are already being watched")
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
        """End all streams. Their clients reconnect to another replica or to the next process."""
        self.closing = True
        for channel, _ in self._channels.values():
            channel.wake_all()

    async def stop(self) -> None:
        """End all streams and watches."""
        self.close()
        tasks = [task for _, task in self._channels.values()] + list(self._reapers)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._channels.clear()
