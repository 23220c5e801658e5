from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from taskflow_core.domain.phases import OPEN_SELECTOR
from taskflow_core.errors import Conflict, TaskflowError
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.observer import Observer

log = get_logger(__name__)
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
SHORT_SECONDS = 1.0
"""A watch that ends sooner is trouble, even if the server ended it in order."""


class KindWatch:
    """Watches the open Tasks of all namespaces, and lists them anew when the API server has forgotten where the watch was.

    Tasks are many and change often, and Kopf spends ten times as much on an event as this loop does (`docs/decisions/0005`).

    Args:
        kube: the API server.
        observer: gets each Task.
        clock: monotonic seconds.
        sleep: how to wait.
    """

    def __init__(
        self,
        kube: KubeClient,
        observer: Observer,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._version: str | None = None
        self._down_since: float | None = None
        self._errors = ConsecutiveErrors("watch")
        self.latest = clock()
        """When the API server last sent something, if only a bookmark, which comes every minute (monotonic seconds)."""

    @property
    def down_seconds(self) -> float:
        """How long there has been no watch; 0 while there is one."""
        return 0.0 if self._down_since is None else self._clock() - self._down_since

    async def list(self) -> None:
        """Read all open Tasks; the watch goes on from there.

        Raises:
            Unavailable, Conflict: the list could not be read to its end.
        """
        self._version = await self._observer.list_open()
        self.latest = self._clock()

    async def run(self) -> None:
        """Watch until cancelled."""
        pause, expired = FIRST_PAUSE, False
        while True:
            began = self._clock()
            error = await self._once()
            if self._down_since is None and self._clock() - began > SHORT_SECONDS:
                # There was a watch, so this is a new trouble.
                pause = FIRST_PAUSE
                if error is None:
                    continue
            if isinstance(error, Conflict) and not expired:
                # The API server answers; what is needed is a list, and not patience.
                pause = FIRST_PAUSE
            expired = isinstance(error, Conflict)
            if self._down_since is None:
                self._down_since = self._clock()
            metrics.WATCH_ENDS.labels(watch="tasks").inc()
            log.warning("watch_ended", watch="tasks", error=str(error) if error else "at once", again_in_seconds=pause)
            # Spread, or all operators that lost the same API server come back in the same moment.
            await self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _once(self) -> TaskflowError | None:
        try:
            if self._version is None:
                await self.list()
            await self._follow(self._version or "")
        except Conflict as error:
            # Compacted in etcd: what happened in between is in the next list.
            self._version = None
            return error
        except TaskflowError as error:
            dependency_health.failed(error)
            return error
        return None

    async def _follow(self, version: str) -> None:
        async for events in self._kube.watch(tasks_path(), version, OPEN_SELECTOR):
            self.latest, self._down_since = self._clock(), None
            self._errors.check()
            for event in events:
                self._take(event)
            # A long burst must not hold up a renewal of the Lease.
            await asyncio.sleep(0)

    def _take(self, event: dict[str, Any]) -> None:
        body = event["object"]
        meta = body["metadata"]
        if event["type"] != "BOOKMARK":
            try:
                # DELETED means "left the selection of open Tasks": it finished, or it is gone.
                self._observer.observe(body, gone=event["type"] == "DELETED")
            except Exception as error:  # noqa: BLE001 - one object that nobody thought of must not stop the others
                self._errors.record(
                    error, object=f"Task {meta.get('namespace')}/{meta.get('name')}", uid=meta.get("uid")
                )
            else:
                self._errors.clear()
        self._version = meta["resourceVersion"]
