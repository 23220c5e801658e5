"""Watches resources of one kind, by a loop of the operator's own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from taskflow_core.domain import naming
from taskflow_core.errors import Conflict, TaskflowError
from taskflow_core.kube.client import KubeClient, resource_path
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import ConsecutiveErrors

log = get_logger(__name__)
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
SHORT_SECONDS = 1.0
"""A watch that ends sooner is a failure, even if the server ended it in order."""


class Observer(Protocol):
    """Takes in the resources of one kind."""

    def observe(self, body: dict[str, Any], *, gone: bool = False) -> None:
        """Take in a resource; `gone` means that it left the selection."""

    async def list(self) -> str:
        """List all resources, take them in, and take those for gone that are known and not in the list.

        Returns the resourceVersion of the list. Raises our errors. The watch lists only when it has lost its place, so
        a controller that needs a periodic comparison calls this itself.
        """


class KindWatch:
    """Watches one kind in all namespaces, and lists it again when the API server no longer knows where the watch was.

    For kinds of which there are many that change often: Kopf spends ten times as much on an event as this loop does
    (`docs/decisions/0005`).

    Args:
        kube: the API server.
        plural: of the kind, such as `tasks`.
        observer: takes in each resource.
        selector: field selector; only these resources are watched.
        name: of the watch, in logs and metrics; by default the plural.
        labels: label selector, likewise.
        group: path of the API group and version.
        clock: monotonic seconds.
        sleep: how to wait.
    """

    def __init__(
        self,
        kube: KubeClient,
        plural: str,
        observer: Observer,
        *,
        selector: str = "",
        name: str = "",
        labels: str = "",
        group: str = f"apis/{naming.API_VERSION}",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self.name = name or plural
        self._plural = plural
        self._path = resource_path(group, plural)
        self._observer = observer
        self._selectors = selector, labels
        self._clock = clock
        self._sleep = sleep
        self._version: str | None = None
        self._down_since: float | None = None
        self._errors = ConsecutiveErrors(f"watch-{self.name}")
        self.latest = clock()
        """When the API server last sent something (monotonic seconds). It sends a bookmark at least every minute."""

    @property
    def down_seconds(self) -> float:
        """How long there has been no watch; 0 while there is one."""
        return 0.0 if self._down_since is None else self._clock() - self._down_since

    async def list(self) -> None:
        """List all resources; the watch continues from there.

        Raises:
            Unavailable, Conflict: the list could not be read to its end.
        """
        self._version = await self._observer.list()
        self.latest = self._clock()

    async def run(self) -> None:
        """Watch until cancelled."""
        pause, expired = FIRST_PAUSE, False
        while True:
            began = self._clock()
            error = await self._once()
            if self._down_since is None and self._clock() - began > SHORT_SECONDS:
                # There was a watch, so this is a new failure.
                pause = FIRST_PAUSE
                if error is None:
                    continue
            if isinstance(error, Conflict) and not expired:
                # The API server answers. A new list is needed, not a longer pause.
                pause = FIRST_PAUSE
            expired = isinstance(error, Conflict)
            if self._down_since is None:
                self._down_since = self._clock()
            metrics.WATCH_ENDS.labels(watch=self.name).inc()
            log.warning(
                "watch_ended", watch=self.name, error=str(error) if error else "at once", again_in_seconds=pause
            )
            # Spread, or all operators that lost the same API server come back at once.
            await self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _once(self) -> TaskflowError | None:
        try:
            if self._version is None:
                await self.list()
            await self._follow(self._version or "")
        except Conflict as error:
            # etcd was compacted: the next list shows what happened in between.
            self._version = None
            return error
        except TaskflowError as error:
            dependency_health.failed(error)
            return error
        return None

    async def _follow(self, version: str) -> None:
        async for events in self._kube.watch(self._path, version, *self._selectors):
            self.latest, self._down_since = self._clock(), None
            self._errors.check()
            for event in events:
                self._take(event)
            # A long burst must not delay a renewal of the Lease.
            await asyncio.sleep(0)

    def _take(self, event: dict[str, Any]) -> None:
        body = event["object"]
        meta = body["metadata"]
        if event["type"] != "BOOKMARK":
            try:
                # DELETED means that it left the selection; it may still exist.
                self._observer.observe(body, gone=event["type"] == "DELETED")
            except Exception as error:  # noqa: BLE001 - one unexpected object must not stop the others
                self._errors.record(
                    error, object=f"{self._plural} {meta.get('namespace')}/{meta.get('name')}", uid=meta.get("uid")
                )
            else:
                self._errors.clear()
        self._version = meta["resourceVersion"]
