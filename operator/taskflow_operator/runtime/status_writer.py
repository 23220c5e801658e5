"""Writes the status of resources with as few requests as possible."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from taskflow_core.errors import Conflict, Forbidden, NotFound, TaskflowError, Unavailable
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.fair_queue import FairQueue
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.runtime.token_bucket import TokenBucket

log = get_logger(__name__)
TICK_SECONDS = 0.05
RETRY_SECONDS = 1.0
IN_FLIGHT = 16


class Written(StrEnum):
    """Result of a status write."""

    DONE = "done"
    """The resource has the status."""
    GONE = "gone"
    """The resource was deleted, or its name belongs to another one."""
    REFUSED = "refused"
    """The API server does not accept the status; the log says why."""


class Resource(Protocol):
    """A resource as it is when its status is submitted."""

    @property
    def plural(self) -> str:
        """Plural name of its kind, such as `tasks`."""

    @property
    def uid(self) -> str:
        """Its uid."""

    @property
    def namespace(self) -> str:
        """Its namespace."""

    @property
    def name(self) -> str:
        """Its name."""

    def status_object(self) -> dict[str, Any]:
        """Its whole status, as JSON."""


class StatusApi(Protocol):
    """The one request that is made."""

    async def patch_status(self, plural: str, namespace: str, name: str, uid: str, status: dict[str, Any]) -> None:
        """Replace the status of a resource. Raises our errors."""


@dataclass
class _Pending:
    resource: Resource
    due: float
    waiters: list[asyncio.Future[Written]] = field(default_factory=list)


class StatusWriter:
    """The last status of a resource wins, and a status that it has already is not written.

    A status write costs the API server about 3 ms of CPU even when nothing changes. Namespaces take turns: an end is
    not written behind thousands of another namespace's.

    Args:
        api: where to write.
        per_second: bound on the rate, by a token bucket that holds one second's worth.
        clock: monotonic seconds.
        weight: writes of a namespace in one round.
    """

    def __init__(
        self,
        api: StatusApi,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        weight: Callable[[str], int] = lambda _: 1,
    ) -> None:
        self._api = api
        self._rate = per_second
        self._clock = clock
        self._bucket = TokenBucket(per_second, per_second, clock())
        self._pending: dict[str, _Pending] = {}
        self._schedule: list[tuple[float, str]] = []
        self._ready = FairQueue(weight)
        self._last: dict[str, bytes] = {}
        """By uid, the digest of the status that the resource has: the status itself takes 3 KiB."""
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._writing: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._errors = ConsecutiveErrors("status")

    def submit(self, resource: Resource, delay: float = 0.0) -> asyncio.Future[Written]:
        """Write the status after `delay` seconds, unless a later call replaces it. The future has the result."""
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        due = self._clock() + delay
        former = self._pending.get(resource.uid)
        waiters = [future]
        if former:
            # A later call does not postpone the write: a status that changes all the time would never be written.
            due, waiters = min(due, former.due), [*former.waiters, future]
            metrics.STATUS_WRITES.labels(result="avoided").inc()
        self._pending[resource.uid] = _Pending(resource, due, waiters)
        if former is None or due < former.due:
            heapq.heappush(self._schedule, (due, resource.uid))
        return future

    def seen(self, uid: str, status: dict[str, Any]) -> None:
        """The resource has this status, as an earlier operator wrote it."""
        self._last[uid] = _digest(status)

    def forget(self, uid: str) -> None:
        """The resource is closed: its last status need not be remembered."""
        self._last.pop(uid, None)

    async def run(self) -> None:
        """Write what is due, until cancelled."""
        while True:
            self._errors.check()
            self._find_due()
            while self._ready:
                await self._slots.acquire()
                await self.turn()
                # What became due meanwhile takes its turn too.
                self._find_due()
                uid = self._ready.take()
                self._writing.add(uid)
                job = asyncio.create_task(self._write(uid, self._pending.pop(uid)))
                self._running.add(job)
                job.add_done_callback(self._running.discard)
            await asyncio.sleep(TICK_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Give running writes a moment to end, before the process does."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    def _find_due(self) -> None:
        now = self._clock()
        while self._schedule and self._schedule[0][0] <= now:
            due, uid = heapq.heappop(self._schedule)
            entry = self._pending.get(uid)
            # The heap keeps entries of statuses that were replaced since; only the current one counts.
            if entry is None or entry.due != due:
                continue
            if uid in self._writing:
                # One write at a time for each resource, or two could arrive in the wrong order.
                entry.due = now + TICK_SECONDS
                heapq.heappush(self._schedule, (entry.due, uid))
                continue
            self._ready.put(entry.resource.namespace, uid)

    async def turn(self) -> None:
        """Wait until another status may be written; for whoever writes one without this class."""
        while True:
            self._bucket.refill(self._clock())
            if self._bucket.tokens >= 1:
                self._bucket.tokens -= 1
                return
            await asyncio.sleep((1 - self._bucket.tokens) / self._rate)

    async def _write(self, uid: str, entry: _Pending) -> None:
        try:
            result = await self._write_once(entry.resource)
        except (Unavailable, Forbidden) as error:
            dependency_health.failed(error)
            metrics.STATUS_WRITES.labels(result="postponed").inc()
            self._retry(uid, entry)
            return
        finally:
            self._writing.discard(uid)
            self._slots.release()
        for waiter in entry.waiters:
            if not waiter.done():
                waiter.set_result(result)

    async def _write_once(self, resource: Resource) -> Written:
        fields = {"resource": f"{resource.plural}/{resource.namespace}/{resource.name}", "uid": resource.uid}
        try:
            status = resource.status_object()
            digest = _digest(status)
            if self._last.get(resource.uid) == digest:
                metrics.STATUS_WRITES.labels(result="avoided").inc()
                return Written.DONE
            await self._api.patch_status(resource.plural, resource.namespace, resource.name, resource.uid, status)
            self._last[resource.uid] = digest
            result = Written.DONE
        except (Unavailable, Forbidden):
            # Rights come and go while RBAC is changed; a status is worth waiting for.
            raise
        except (NotFound, Conflict):
            result = Written.GONE
        except TaskflowError as error:
            log.error("status_refused", **fields, error=str(error))  # noqa: TRY400
            result = Written.REFUSED
        except Exception as error:  # noqa: BLE001 - whoever waits for the result must get one
            self._errors.record(error, **fields)
            result = Written.REFUSED
        else:
            self._errors.clear()
        metrics.STATUS_WRITES.labels(result=result.value).inc()
        return result

    def _retry(self, uid: str, entry: _Pending) -> None:
        newer = self._pending.get(uid)
        if newer is not None:
            newer.waiters[:0] = entry.waiters
            return
        entry.due = self._clock() + RETRY_SECONDS
        self._pending[uid] = entry
        heapq.heappush(self._schedule, (entry.due, uid))


def _digest(status: dict[str, Any]) -> bytes:
    text = json.dumps(status, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
