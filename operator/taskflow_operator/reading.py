from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from taskflow_core.domain.events import Event
from taskflow_core.errors import TaskflowError, Unavailable
from taskflow_core.ledger.stream import StreamReader
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
RETRY_SECONDS = 1.0

Take = Callable[[tuple[Event, ...], tuple[str, ...]], Awaitable[None]]


async def read_for_ever(reader: StreamReader, take: Take, data_lost: Callable[[str], None]) -> None:
    """Read a group's events and hand them on, until cancelled.

    Args:
        reader: the group.
        take: gets the events and the ids of entries that are none. If it raises one of our errors, it gets the same ones again.
        data_lost: called with the reason when events may be missing: the group was made anew, or the stream trimmed past it.
    """
    fresh = True
    while True:
        try:
            if fresh:
                if await reader.ensure_group():
                    data_lost("its place in the stream was lost")
                elif await reader.gap():
                    data_lost("the stream was trimmed before it was read")
                fresh = False
            batch = await reader.read()
        except LookupError:
            fresh = True
            continue
        except Unavailable as error:
            log.warning("stream_read_postponed", error=str(error))
            # After an outage the group may be gone, or entries trimmed: look before reading on.
            fresh = True
            await asyncio.sleep(RETRY_SECONDS)
            continue
        for stream_id, problem in batch.broken:
            log.error("stream_entry_broken", id=stream_id, error=problem)
        if batch.events or batch.broken:
            await _insist(take, batch.events, tuple(stream_id for stream_id, _ in batch.broken))


async def _insist(take: Take, events: tuple[Event, ...], broken: tuple[str, ...]) -> None:
    while True:
        try:
            await take(events, broken)
        except TaskflowError as error:
            log.warning("events_postponed", events=len(events), error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
