"""Runs Kopf in a thread with an event loop of its own, so that neither its end nor its load affects the operator.

Kopf ends on errors that are routine for an API server (a watch error 500 or 504, HTTP 410 for a list, minutes of 5xx or
403). It is then started again, which lists everything again. The operator's own loops never stop. This module does not
import Kopf: it is given what to run.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
STOP_SECONDS = 5.0
WIND_UP_SECONDS = 2.0

Watch = Callable[[asyncio.Event], Awaitable[None]]
"""Watches until the event is set or the watch fails. Runs in a thread of its own."""


@dataclass
class _Run:
    """One run of the watch."""

    ended: asyncio.Future[BaseException | None]
    loop: asyncio.AbstractEventLoop | None = None
    stop: asyncio.Event | None = None
    ready: threading.Event = field(default_factory=threading.Event)


class KopfRunner:
    """Runs a watch in a thread, and restarts it whenever it ends.

    Args:
        watch: what to run.
        clock: monotonic seconds.
        sleep: how to wait.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._watch = watch
        self._clock = clock
        self._sleep = sleep
        self._down_since: float | None = None

    @property
    def down_seconds(self) -> float:
        """How long there has been no watch; 0 while there is one."""
        return 0.0 if self._down_since is None else self._clock() - self._down_since

    async def run(self) -> None:
        """Watch until cancelled."""
        pause = FIRST_PAUSE
        while True:
            began = self._clock()
            self._down_since = None
            error = await self._live()
            self._down_since = self._clock()
            if self._down_since - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            metrics.WATCH_ENDS.labels(watch="kopf").inc()
            log.warning(
                "watch_ended",
                watch="kopf",
                error=repr(error) if error else "it ended by itself",
                again_in_seconds=pause,
            )
            await self._sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _live(self) -> BaseException | None:
        loop = asyncio.get_running_loop()
        life = _Run(ended=loop.create_future())
        # A daemon thread: if it does not end in time, the process ends without it. It gets a copy of this context, so
        # that its log lines name the component as all others do.
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(self._in_thread, life, loop), name="kopf", daemon=True)
        thread.start()
        try:
            return await asyncio.shield(life.ended)
        except asyncio.CancelledError:
            await self._stop(life)
            raise

    def _in_thread(self, life: _Run, home: asyncio.AbstractEventLoop) -> None:
        error: BaseException | None = None
        try:
            _run(self._begin(life))
        except BaseException as raised:  # noqa: BLE001 - it belongs to whoever started the thread
            error = raised
        life.ready.set()
        try:
            home.call_soon_threadsafe(_settle, life.ended, error)
        except RuntimeError:
            # The process is ending and its loop is closed: nobody waits any more.
            return

    async def _begin(self, life: _Run) -> None:
        life.loop, life.stop = asyncio.get_running_loop(), asyncio.Event()
        life.ready.set()
        await self._watch(life.stop)

    async def _stop(self, life: _Run) -> None:
        await asyncio.to_thread(life.ready.wait, STOP_SECONDS)
        if life.loop is not None and life.stop is not None and not life.ended.done():
            try:
                life.loop.call_soon_threadsafe(life.stop.set)
            except RuntimeError:
                return
        await asyncio.wait([life.ended], timeout=STOP_SECONDS)
        if not life.ended.done():
            log.warning("watch_abandoned", seconds=STOP_SECONDS)


def _run(work: Coroutine[None, None, None]) -> None:
    """As `asyncio.run`, which would wait for ever for a task that does not end when it is cancelled."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_report)
    try:
        loop.run_until_complete(work)
    finally:
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=WIND_UP_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    log.info("watch_loop_error", error=str(context.get("message")), cause=repr(context.get("exception")))


def _settle(future: asyncio.Future[BaseException | None], error: BaseException | None) -> None:
    if not future.done():
        future.set_result(error)
