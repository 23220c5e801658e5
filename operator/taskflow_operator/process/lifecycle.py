"""The lifecycle of the process: stand by, lead, stop."""

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
"""From the signal to the end of the process, whatever hangs; shorter than any sensible grace period of a pod."""
CANCEL_SECONDS = 8.0


class Exit(IntEnum):
    """Exit codes."""

    STOPPED = 0
    """Stopped by a signal."""
    BROKEN = 1
    """A part failed; the log says why."""
    UNUSABLE = 2
    """Settings or credentials are unusable; stderr says which."""
    LEASE_LOST = 3
    """Another operator holds the Lease; nothing was written since then."""


class Work(Protocol):
    """What only the leader does."""

    async def work(self) -> None:
        """Work until cancelled; ends by itself only when a part fails."""

    async def drain(self) -> None:
        """After `work`: let running writes end, and acknowledge what was done."""


class Lifecycle:
    """Stands by, leads and stops, each once and in this order.

    Args:
        leadership: when to begin, and whether to continue.
        work: what the leader does.
        end_now: ends the process at once with an exit code.
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
        """Run until `stop` is set, or a part fails."""
        stopped = asyncio.create_task(stop.wait())
        acquiring = asyncio.create_task(self._leadership.acquire())
        await asyncio.wait([stopped, acquiring], return_when=asyncio.FIRST_COMPLETED)
        if not acquiring.done():
            self._stopping()
            acquiring.cancel()
            await asyncio.wait([acquiring])
            return Exit.STOPPED
        acquiring.result()
        holding = asyncio.create_task(self._hold())
        working = asyncio.create_task(self._work.work())
        await asyncio.wait([stopped, working, holding], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
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
        # Last of all: from now on another operator may write.
        await self._leadership.release()
        return code

    async def _hold(self) -> None:
        try:
            await self._leadership.hold()
        except LeaseLostError as error:
            log.critical("lease_lost", error=str(error), exit_code=int(Exit.LEASE_LOST))
            # At once and not in order: whatever would still be written is up to the other operator now.
            self._end_now(Exit.LEASE_LOST)


def end_now(code: int) -> None:
    """End the process without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def limit_stop() -> None:
    """End the process `STOP_SECONDS` from now, if anything still hangs then: a thread, a connection, the
    interpreter.
    """

    def overdue() -> None:
        log.critical("stop_overdue", seconds=STOP_SECONDS)
        end_now(Exit.BROKEN)

    timer = threading.Timer(STOP_SECONDS, overdue)
    timer.daemon = True
    timer.start()
