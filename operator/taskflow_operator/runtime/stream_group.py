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
AGAIN_SECONDS = 30.0
"""How often what was read and not acknowledged is read again: it failed, or a former leader read it and ended."""

Take = Callable[[tuple[Event, ...], tuple[str, ...]], Awaitable[None]]


async def consume_group(
    reader: StreamReader,
    take: Take,
    data_lost: Callable[[str], Awaitable[None] | None],
    may_read: Callable[[], Awaitable[None]],
    *,
    gather_seconds: float,
    caught_up: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Read a group's events and hand them on, until cancelled.

    Args:
        reader: the group.
        take: gets the events and the ids of entries that are none. If it raises `Unavailable`, it gets the same ones again.
        data_lost: called with the reason when events may be missing: the group is not there, or the stream was trimmed past it.
            What it returns is waited for, and only then is the group made: whoever dies before leaves that to do for the next. It is
            called again if data was lost once more meanwhile.
        may_read: waits while this process is not sure to be the leader; what it read, no other one would.
        gather_seconds: after each batch, so long events gather for the next one. A lone event is read at once; a round trip for each
            of many costs more CPU than what is done with it.
        caught_up: called when everything that was in the stream has been handed on.
        clock: monotonic seconds.
    """
    fresh_until = 0.0
    while True:
        await may_read()
        try:
            if clock() >= fresh_until:
                if not await reader.has_group():
                    mark = await reader.mark()
                    await _done(data_lost("its place in the stream was lost"))
                    if not await reader.make_group(mark):
                        continue
                reader.start_over()
                if await reader.gap():
                    await _done(data_lost("the stream was trimmed before it was read"))
                fresh_until = clock() + AGAIN_SECONDS
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
            await _hand_on(batch, take, gather_seconds)
        if batch.last:
            caught_up()


async def _done(work: Awaitable[None] | None) -> None:
    if work is not None:
        await work


async def _hand_on(batch: Batch, take: Take, gather_seconds: float) -> None:
    for stream_id, problem in batch.broken:
        log.error("stream_entry_broken", id=stream_id, error=problem)
    await dependency_health.retry_until_available(
        lambda: take(batch.events, tuple(stream_id for stream_id, _ in batch.broken))
    )
    await asyncio.sleep(gather_seconds)
