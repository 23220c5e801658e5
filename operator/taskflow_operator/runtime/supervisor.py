"""Keeps loops running: one object that fails does not stop the others, and a loop that fails is restarted, within
limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
MAX_CONSECUTIVE = 50
HEALTHY_SECONDS = 60.0
RESTARTS = 5


class TooManyErrorsError(Exception):
    """A loop failed too often in a row: no single object is at fault."""


class ConsecutiveErrors:
    """Counts the unexpected errors of one loop. Those of single objects are logged only: whoever may create objects
    must not be able to end a loop that others need.

    Args:
        kind: name of the loop, label of the metric.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._count = 0

    def clear(self) -> None:
        """A round, or an object, was handled."""
        self._count = 0

    def record(self, error: Exception, **fields: object) -> None:
        """A round failed, or an object could not be handled; then `fields` identify it in the log."""
        metrics.ERRORS.labels(kind=self._kind).inc()
        log.error("unexpected", kind=self._kind, exc_info=error, **fields)
        self._count += not fields

    def check(self) -> None:
        """Called by the loop in each round.

        Raises:
            TooManyErrorsError: `MAX_CONSECUTIVE` rounds failed, and none succeeded in between.
        """
        if self._count >= MAX_CONSECUTIVE:
            raise TooManyErrorsError(f"{self._kind}: {self._count} errors in a row")


async def keep_running(
    kind: str,
    start: Callable[[], Awaitable[None]],
    failing: set[str],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run a loop that should never end. Restart it when it fails, up to a limit.

    Args:
        kind: name of the loop.
        start: starts it.
        failing: contains the name while the loop does not run.
        clock: monotonic seconds.
        sleep: how to wait.

    Raises:
        TooManyErrorsError: it failed `RESTARTS` times, each time within `HEALTHY_SECONDS` of its start.
    """
    row = 0
    while True:
        began = clock()
        error: Exception
        try:
            await start()
            error = RuntimeError("the loop ended, which it never should")
        except Exception as raised:  # noqa: BLE001 - any error is logged, counted and bounded
            error = raised
        row = 1 if clock() - began > HEALTHY_SECONDS else row + 1
        metrics.ERRORS.labels(kind=kind).inc()
        log.error("loop_failed", kind=kind, times=row, exc_info=error)
        if row >= RESTARTS:
            raise TooManyErrorsError(f"{kind}: failed {row} times, each right after its start") from error
        failing.add(kind)
        await sleep(float(2 ** (row - 1)))
        failing.discard(kind)


async def run_all(loops: Iterable[Coroutine[None, None, None]]) -> None:
    """Run loops concurrently. When one fails, or this is cancelled, all of them end."""
    jobs = [asyncio.ensure_future(loop) for loop in loops]
    try:
        done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        for job in done:
            job.result()
    finally:
        await cancel_all(jobs)


async def cancel_all(jobs: Iterable[asyncio.Future[None]]) -> None:
    """Cancel jobs until all of them have ended."""
    while running := [job for job in jobs if not job.done()]:
        for job in running:
            job.cancel()
        # Repeated: a Redis connection that is being made can swallow a cancellation.
        await asyncio.wait(running, timeout=1)
