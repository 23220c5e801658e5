from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.process.leader_election import LeaderElection, LeaseLostError

log = get_logger(__name__)
STOP_SECONDS = 20.0
"""From the signal to the end of the process, whatever hangs; below any sensible grace period of a pod."""
CANCEL_SECONDS = 8.0


class Exit(IntEnum):
    """How the process ended."""

    STOPPED = 0
    """As it was told."""
    BROKEN = 1
    """A part of it did; the log says why."""
    UNUSABLE = 2
    """Settings or credentials are; stderr says which."""
    LEASE_LOST = 3
    """Another operator holds the Lease; nothing was written since."""


class Work(Protocol):
    """What only the leader does."""

    async def work(self) -> None:
        """Act until cancelled; ends by itself only when it is broken."""

    async def drain(self) -> None:
        """After `work`: let running writes end, and say what was done."""


class Lifecycle:
    """Stand by, lead, stop: in this order, each once.

    Args:
        leadership: when to begin, and whether to go on.
        work: what to do meanwhile.
        end_now: ends the process at once with that code.
        stopping: called when it begins to stop.
    """

    def __init__(
        self, leadership: LeaderElection, work: Work, end_now: Callable[[int], None], stopping: Callable[[], None]
    ) -> None:
        self._leadership = leadership
        self._work = work
        self._end_now = end_now
        self._stopping = stopping

    async def run(self, stop: asyncio.Event) -> Exit:
        """Until `stop` is set, or something breaks."""
        told = asyncio.create_task(stop.wait())
        acquiring = asyncio.create_task(self._leadership.acquire())
        await asyncio.wait([told, acquiring], return_when=asyncio.FIRST_COMPLETED)
        if not acquiring.done():
            self._stopping()
            acquiring.cancel()
            await asyncio.wait([acquiring])
            return Exit.STOPPED
        acquiring.result()
        holding = asyncio.create_task(self._hold())
        working = asyncio.create_task(self._work.work())
        await asyncio.wait([told, working, holding], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        self._stopping()
        code = Exit.STOPPED
        for job in (working, holding):
            if job.done():
                code = Exit.BROKEN
                log.critical("operator_broken", exc_info=None if job.cancelled() else job.exception())
        working.cancel()
        await asyncio.wait([working], timeout=CANCEL_SECONDS)
        await self._work.drain()
        holding.cancel()
        await asyncio.wait([holding])
        # Last of all: from now on another one may write.
        await self._leadership.release()
        return code

    async def _hold(self) -> None:
        try:
            await self._leadership.hold()
        except LeaseLostError as error:
            log.critical("lease_lost", error=str(error), exit_code=int(Exit.LEASE_LOST))
            # Not in order, but at once: whatever would still be written belongs to the other one now.
            self._end_now(Exit.LEASE_LOST)


def end_now(code: int) -> None:
    """End the process without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def limit_stop() -> None:
    """End the process `STOP_SECONDS` from now, should anything hang until then: a thread, a connection, the interpreter."""

    def overdue() -> None:
        log.critical("stop_overdue", seconds=STOP_SECONDS)
        end_now(Exit.BROKEN)

    timer = threading.Timer(STOP_SECONDS, overdue)
    timer.daemon = True
    timer.start()
