"""Reads the event streams of all namespaces for one consumer group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from taskflow_core.domain.events import EntryId, Event, Stream
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.stream import STREAMS_PER_READ, Read, StreamReader
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health

log = get_logger(__name__)
RETRY_SECONDS = 1.0
PENALTY_SECONDS = 0.25
"""A stream of which everything was refused is read again after this time, so that a flood of entries that are no events
costs little."""
SAMPLE_SECONDS = 10.0
"""The time between two log entries about what a namespace's workers were refused."""

Handler = Callable[[tuple[Event, ...], tuple[EntryId, ...]], Awaitable[None]]


class StreamGroup:
    """Reads streams that have something, in turn, and hands on what they have. Each read of a stream is bounded, so no
    namespace waits for the flood of another.

    Args:
        reader: the group.
        handle: gets the events, and entries that are no events. If it raises `Unavailable`, it gets the same ones
            again.
        may_read: waits while this process is not sure to be the leader; what it read, no other one would.
        gather_seconds: how long events gather after each batch. A single event is read at once; a round trip for each
            of many costs more CPU than handling them.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        reader: StreamReader,
        handle: Handler,
        may_read: Callable[[], Awaitable[None]],
        *,
        gather_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reader = reader
        self._handle = handle
        self._may_read = may_read
        self._gather_seconds = gather_seconds
        self._clock = clock
        self._ready: dict[Stream, None] = {}
        self._penalised: set[Stream] = set()
        """Not read yet, though they may have something."""
        self._arrived = asyncio.Event()
        self._caught_up: dict[str, float] = {}
        self._sampled: dict[str, float] = {}

    def ready(self, streams: Iterable[Stream]) -> None:
        """These streams may have something."""
        for stream in streams:
            if stream not in self._penalised:
                self._ready[stream] = None
        self._arrived.set()

    def caught_up(self, namespace: str) -> float:
        """Everything has been handed on that was in the streams of a namespace at that time (monotonic seconds); 0 if
        that never happened.
        """
        return self._caught_up.get(namespace, 0.0)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self._may_read()
            streams = await self._next()
            began = self._clock()
            try:
                reads = await self.reader.read(streams)
            except Unavailable as error:
                dependency_health.failed(error)
                # What was read meanwhile is unacknowledged, and comes first.
                for stream in streams:
                    self.reader.start_over(stream)
                self.ready(streams)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._hand_on(reads, began)

    async def _next(self) -> Sequence[Stream]:
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        streams = list(self._ready)[:STREAMS_PER_READ]
        for stream in streams:
            del self._ready[stream]
        return streams

    async def _hand_on(self, reads: Sequence[Read], began: float) -> None:
        events: list[Event] = []
        refused: list[EntryId] = []
        for read in reads:
            self._count(read)
            events += read.events
            refused += [each.entry for each in read.refused]
            if read.problem:
                # The next look finds what is wrong with the stream.
                continue
            if read.refused and not read.events:
                self._penalise(read.stream)
            elif not read.last:
                self.ready([read.stream])
        if not events and not refused:
            self._note(reads, began)
            return
        await dependency_health.retry_until_available(lambda: self._handle(tuple(events), tuple(refused)))
        self._note(reads, began)
        await asyncio.sleep(self._gather_seconds)

    def _penalise(self, stream: Stream) -> None:
        self._penalised.add(stream)
        self._ready.pop(stream, None)
        asyncio.get_running_loop().call_later(PENALTY_SECONDS, self._pardon, stream)

    def _pardon(self, stream: Stream) -> None:
        self._penalised.discard(stream)
        self.ready([stream])

    def _note(self, reads: Iterable[Read], began: float) -> None:
        for read in reads:
            if read.last and not read.problem:
                self._caught_up[read.stream.namespace] = began

    def _count(self, read: Read) -> None:
        for each in read.refused:
            metrics.EVENTS_REFUSED.labels(consumer=self.reader.group, reason=each.reason.value).inc()
        namespace, now = read.stream.namespace, self._clock()
        if read.refused and now - self._sampled.get(namespace, float("-inf")) >= SAMPLE_SECONDS:
            self._sampled[namespace] = now
            first = read.refused[0]
            log.warning(
                "events_refused",
                namespace=namespace,
                count=len(read.refused),
                id=first.entry.id,
                reason=first.reason.value,
                error=first.message,
            )
