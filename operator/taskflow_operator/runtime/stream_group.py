"""Reads a consumer group of the event stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from taskflow_core.domain.events import Event
from taskflow_core.errors import Unavailable
from taskflow_core.ledger.stream import Batch, StreamReader
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health

log = get_logger(__name__)
RETRY_SECONDS = 1.0
REREAD_SECONDS = 30.0
"""How often unacknowledged entries are read again: they failed, or a former leader read them and died."""

Handler = Callable[[tuple[Event, ...], tuple[str, ...]], Awaitable[None]]


async def consume_group(
    reader: StreamReader,
    handle: Handler,
    data_lost: Callable[[str], Awaitable[None] | None],
    may_read: Callable[[], Awaitable[None]],
    *,
    gather_seconds: float,
    caught_up: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Read the events of a consumer group and hand them on, until cancelled.

    Args:
        reader: the group.
        handle: gets the events, and the ids of entries that are no events. If it raises `Unavailable`, it gets the same
            ones again.
        data_lost: called with the reason when events may be missing, because the group does not exist or the stream was
            trimmed past it. The group is created only after what it returns has ended: if the process dies first, its
            successor repeats this step. It is called again if data was lost once more meanwhile.
        may_read: waits while this process is not sure to be the leader; what it read, no other one would.
        gather_seconds: how long events gather after each batch. A single event is read at once; a round trip for each
            of many costs more CPU than handling them.
        caught_up: called when everything in the stream has been handed on.
        clock: monotonic seconds.
    """
    fresh_until = 0.0
    while True:
        await may_read()
        try:
            if clock() >= fresh_until:
                if not await reader.has_group():
                    mark = await reader.mark()
                    await _finish(data_lost("its place in the stream was lost"))
                    if not await reader.make_group(mark):
                        continue
                reader.start_over()
                if await reader.gap():
                    await _finish(data_lost("the stream was trimmed before it was read"))
                fresh_until = clock() + REREAD_SECONDS
            batch = await reader.read()
        except LookupError:
            fresh_until = 0.0
            continue
        except Unavailable as error:
            dependency_health.failed(error)
            # After an outage the group may be gone, or entries trimmed: look before reading on.
            fresh_until = 0.0
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if batch.events or batch.broken:
            await _hand_on(batch, handle, gather_seconds)
        if batch.last:
            caught_up()


async def _finish(work: Awaitable[None] | None) -> None:
    if work is not None:
        await work


async def _hand_on(batch: Batch, handle: Handler, gather_seconds: float) -> None:
    for stream_id, problem in batch.broken:
        log.error("stream_entry_broken", id=stream_id, error=problem)
    await dependency_health.retry_until_available(
        lambda: handle(batch.events, tuple(stream_id for stream_id, _ in batch.broken))
    )
    await asyncio.sleep(gather_seconds)
