"""Forgets runs of Tasks with `spec.rerun` that nobody has asked for in a long time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from taskflow_core.errors import TaskflowError
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health

log = get_logger(__name__)
INTERVAL_SECONDS = 3600.0
SLICE = 1000
"""Rows of one transaction."""


class Runs(Protocol):
    """The database."""

    async def prune_runs(self, unused_since: datetime, limit: int) -> int:
        """Forget at most so many runs; how many it were. Raises `Unavailable`."""


class RunPruner:
    """Prunes once an hour.

    Args:
        runs: the database.
        days: how long a run is kept after it ended, or was last asked for.
        now: the time.
    """

    def __init__(self, runs: Runs, days: int, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._runs = runs
        self._kept = timedelta(days=days)
        self._now = now

    async def run(self) -> None:
        """Prune, until cancelled."""
        while True:
            try:
                await self.prune()
            except TaskflowError as error:
                # The next hour will do.
                dependency_health.failed(error)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def prune(self) -> None:
        """Forget what is old enough.

        Raises:
            Unavailable: the database does not answer.
        """
        count = 0
        while more := await self._runs.prune_runs(self._now() - self._kept, SLICE):
            count += more
        if count:
            log.info("runs_forgotten", count=count)
