"""Going on over what one could not handle, but not over everything: one poisoned object never stops the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger

log = get_logger(__name__)
IN_A_ROW = 50
HEALTHY_SECONDS = 60.0
RESTARTS = 5


class TooManyErrorsError(Exception):
    """A loop could handle nothing of what it got: that is no poisoned object."""


class ConsecutiveErrors:
    """The unexpected errors of one loop, one object at a time.

    Args:
        kind: name of the loop, label of the metric.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._row = 0

    def clear(self) -> None:
        """An object was handled."""
        self._row = 0

    def record(self, error: Exception, **fields: object) -> None:
        """An object could not be handled; what it was is in `fields`."""
        metrics.ERRORS.labels(kind=self._kind).inc()
        log.error("unexpected", kind=self._kind, exc_info=error, **fields)
        self._row += 1

    def check(self) -> None:
        """For the loop itself, whenever it turns.

        Raises:
            TooManyErrorsError: `IN_A_ROW` objects failed, and none was handled in between.
        """
        if self._row >= IN_A_ROW:
            raise TooManyErrorsError(f"{self._kind}: {self._row} errors in a row")


async def keep_running(
    kind: str,
    start: Callable[[], Awaitable[None]],
    failing: set[str],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run what should run for ever; start it again when it fails, but not for ever.

    Args:
        kind: its name.
        start: begins it.
        failing: has the name in it while it does not run.
        clock: monotonic seconds.
        sleep: how to wait.

    Raises:
        TooManyErrorsError: it failed `RESTARTS` times, each within `HEALTHY_SECONDS` of its start.
    """
    row = 0
    while True:
        began = clock()
        error: Exception
        try:
            await start()
            error = RuntimeError("it ended, which it never should")
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is said, counted, and bounded
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
    """Run loops side by side; when one fails, or this is cancelled, all of them end."""
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
        # Again, if need be: a Redis connection that is just being made can swallow a cancellation.
        await asyncio.wait(running, timeout=1)
