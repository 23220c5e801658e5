"""Says once that something went away and once that it is back, whoever notices and however often it is tried meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from taskflow_core.errors import Forbidden, TaskflowError, Unavailable
from taskflow_core.telemetry.logs import get_logger

T = TypeVar("T")
log = get_logger(__name__)
RETRY_SECONDS = 1.0
SETTLED_SECONDS = 3.0
"""It is back when it answers and nobody failed for so long; else each of several callers would say so in turn."""

GRANTED_SECONDS = 30.0
"""The same for rights: what is refused is tried again every few seconds, while other requests are granted."""

REDIS, API_SERVER, POSTGRES, RIGHTS = "redis", "api-server", "postgres", "api-server-rights"
_FROM_WORDS = {"Redis": REDIS, "broker": REDIS, "API server": API_SERVER, "history database": POSTGRES}


class Outage:
    """One thing that others depend on.

    Args:
        dependency: its name.
        settled_seconds: it is back when it answers and nobody failed for so long.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        dependency: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        settled_seconds: float = SETTLED_SECONDS,
    ) -> None:
        self._dependency = dependency
        self._settled = settled_seconds
        self._clock = clock
        self._since: float | None = None
        self._latest = 0.0
        self._failures = 0

    @property
    def seconds(self) -> float:
        """How long it has been away; 0 when it is there."""
        return 0.0 if self._since is None else self._clock() - self._since

    def away(self, error: BaseException) -> None:
        """A call failed."""
        self._latest = self._clock()
        self._failures += 1
        if self._since is None:
            self._since = self._latest
            log.warning("dependency_away", dependency=self._dependency, error=str(error))

    def back(self) -> None:
        """A call succeeded."""
        if self._since is None or self._clock() - self._latest < self._settled:
            return
        seconds = round(self.seconds, 1)
        log.info("dependency_back", dependency=self._dependency, seconds=seconds, failures=self._failures)
        self._since, self._failures = None, 0


OUTAGES = {name: Outage(name) for name in (REDIS, API_SERVER, POSTGRES)} | {
    RIGHTS: Outage(RIGHTS, settled_seconds=GRANTED_SECONDS)
}
"""One of each in the process, as there is one log."""


def away(error: TaskflowError) -> None:
    """A call failed; which dependency it was says the beginning of the message, which our own adapters write."""
    words = str(error)
    if isinstance(error, Forbidden):
        # A server that just started refuses everybody: it has not read its RBAC rules.
        OUTAGES[RIGHTS].away(error)
        return
    name = next((name for prefix, name in _FROM_WORDS.items() if words.startswith(prefix)), None)
    if name is None:
        # No outage but a refusal, such as a list whose snapshot expired: it is tried again, and told of each time.
        log.warning("postponed", error=words)
        return
    OUTAGES[name].away(error)


def back(name: str) -> None:
    """A call to this dependency succeeded."""
    OUTAGES[name].back()


async def insist(action: Callable[[], Awaitable[T]]) -> T:
    """Do it; while it raises `Unavailable`, say so, wait and do it again."""
    while True:
        try:
            return await action()
        except Unavailable as error:
            away(error)
            await asyncio.sleep(RETRY_SECONDS)
