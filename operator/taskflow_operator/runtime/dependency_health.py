"""Logs once when a dependency becomes unavailable and once when it recovers, however many callers notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from taskflow_core.errors import Dependency, Forbidden, TaskflowError, Unavailable
from taskflow_core.telemetry.logs import get_logger

T = TypeVar("T")
log = get_logger(__name__)
RETRY_SECONDS = 1.0
RECOVERY_SECONDS = 3.0
"""A dependency has recovered after one success and no failure for this long. Otherwise each of several callers would
report it."""
PERMISSION_RECOVERY_SECONDS = 30.0
"""The same for permissions: a refused request is retried every few seconds, while other requests are granted."""

PERMISSIONS = "api-server-rights"
"""Name of the operator's permissions at the API server, which can be missing while the server answers."""


class DependencyHealth:
    """Availability of one dependency.

    Args:
        dependency: its name in logs and metrics.
        clock: monotonic seconds.
        recovery_seconds: it has recovered after one success and no failure for this long.
    """

    def __init__(
        self,
        dependency: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        recovery_seconds: float = RECOVERY_SECONDS,
    ) -> None:
        self._dependency = dependency
        self._recovery_seconds = recovery_seconds
        self._clock = clock
        self._since: float | None = None
        self._latest = 0.0
        self._failures = 0

    @property
    def seconds(self) -> float:
        """How long it has been unavailable; 0 while it is available."""
        return 0.0 if self._since is None else self._clock() - self._since

    def failed(self, error: BaseException) -> None:
        """A call failed."""
        self._latest = self._clock()
        self._failures += 1
        if self._since is None:
            self._since = self._latest
            log.warning("dependency_unavailable", dependency=self._dependency, error=str(error))

    def succeeded(self) -> None:
        """A call succeeded."""
        if self._since is None or self._clock() - self._latest < self._recovery_seconds:
            return
        seconds = round(self.seconds, 1)
        log.info("dependency_recovered", dependency=self._dependency, seconds=seconds, failures=self._failures)
        self._since, self._failures = None, 0


DEPENDENCIES: dict[str, DependencyHealth] = {
    **{name: DependencyHealth(name) for name in (Dependency.REDIS, Dependency.API_SERVER, Dependency.POSTGRES)},
    PERMISSIONS: DependencyHealth(PERMISSIONS, recovery_seconds=PERMISSION_RECOVERY_SECONDS),
}
"""One of each in the process, because there is one log."""


def failed(error: TaskflowError) -> None:
    """A call failed with this error."""
    if isinstance(error, Forbidden):
        # A server that has just started refuses everybody: it has not read its RBAC rules.
        DEPENDENCIES[PERMISSIONS].failed(error)
        return
    dependency = error.dependency if isinstance(error, Unavailable) else None
    if dependency is None or dependency not in DEPENDENCIES:
        # A refusal, such as a list whose snapshot expired: it is retried, and logged each time.
        log.warning("postponed", error=str(error))
        return
    DEPENDENCIES[dependency].failed(error)


def succeeded(dependency: str) -> None:
    """A call to this dependency succeeded."""
    DEPENDENCIES[dependency].succeeded()


async def retry_until_available(action: Callable[[], Awaitable[T]]) -> T:
    """Run the action. While it raises `Unavailable`, report that, wait, and run it again."""
    while True:
        try:
            return await action()
        except Unavailable as error:
            failed(error)
            await asyncio.sleep(RETRY_SECONDS)
