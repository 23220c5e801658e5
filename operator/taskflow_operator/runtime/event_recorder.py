"""Records Kubernetes Events for people on call: Tasks that failed for good, pools that cannot get their workers or that
were scaled.

Each Event is a write that the API server keeps for an hour, so there are few: a token bucket for all, of which a
namespace gets at most half, and a pause for each object. Events are hints, not records: those that cannot be posted are
dropped and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from taskflow_core.domain import naming
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import TaskflowError, Unavailable
from taskflow_core.kube.client import Requests, resource_path
from taskflow_core.kube.events import EVENTS, Reporter, event_body
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.token_bucket import TokenBucket

log = get_logger(__name__)
PER_SECOND = 5.0
BURST = 50.0
OBJECT_PAUSE_SECONDS = 60.0
OBJECTS = 10_000
NAMESPACES = 1000
SHARE = 0.5
"""Of all, for one namespace: the others have theirs, whatever fails in that one."""
BACKLOG = 200
Kind = Literal["Normal", "Warning"]


@dataclass(frozen=True)
class Regarding:
    """The resource that an Event is about."""

    kind: str
    namespace: str
    name: str
    uid: str


class EventRecorder:
    """Posts Events in the background.

    Args:
        kube: the API server.
        identity: which operator this is.
        clock: monotonic seconds.
        now: the time.
    """

    def __init__(
        self,
        kube: Requests,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._reporter = Reporter("operator", identity)
        self._clock = clock
        self._now = now
        self._all = TokenBucket(PER_SECOND, BURST, clock())
        self._shares: OrderedDict[str, TokenBucket] = OrderedDict()
        self._latest: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._waiting: deque[dict[str, Any]] = deque()
        self._arrived = asyncio.Event()

    def failed(self, task: Task) -> None:
        """Record the end of a Task that failed; other Tasks are ignored."""
        if task.status.phase is Phase.FAILED:
            about = Regarding("Task", task.namespace, task.name, task.uid)
            self.warn(about, task.status.reason, task.status.message, action="Run")

    def warn(self, about: Regarding, reason: str, note: str, *, action: str) -> None:
        """Post a Warning soon, unless there are too many; does not wait."""
        self._record(about, reason, note, action, "Warning")

    def note(self, about: Regarding, reason: str, note: str, *, action: str) -> None:
        """Post a Normal Event soon, unless there are too many; does not wait."""
        self._record(about, reason, note, action, "Normal")

    def _record(self, about: Regarding, reason: str, note: str, action: str, kind: Kind) -> None:
        if not self._allowed(about, reason) or len(self._waiting) >= BACKLOG:
            metrics.K8S_EVENTS.labels(result="dropped").inc()
            return
        self._waiting.append(self._event(about, reason, note, action, kind))
        self._arrived.set()

    async def run(self) -> None:
        """Post what is waiting, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._post(self._waiting.popleft())

    async def _post(self, event: dict[str, Any]) -> None:
        try:
            await self._kube.request("POST", resource_path(EVENTS, "events", event["metadata"]["namespace"]), event)
        except Unavailable as error:
            dependency_health.failed(error)
            metrics.K8S_EVENTS.labels(result="failed").inc()
        except TaskflowError as error:
            # Its namespace may be terminating.
            log.info("kubernetes_event_refused", uid=event["regarding"]["uid"], error=str(error))
            metrics.K8S_EVENTS.labels(result="failed").inc()
        else:
            metrics.K8S_EVENTS.labels(result="posted").inc()

    def _share(self, namespace: str, now: float) -> TokenBucket:
        if namespace not in self._shares:
            self._shares[namespace] = TokenBucket(PER_SECOND * SHARE, BURST * SHARE, now)
        self._shares.move_to_end(namespace)
        if len(self._shares) > NAMESPACES:
            self._shares.popitem(last=False)
        return self._shares[namespace]

    def _allowed(self, about: Regarding, reason: str) -> bool:
        now, uid = self._clock(), about.uid
        latest = self._latest.get((uid, reason))
        if latest is not None and now - latest < OBJECT_PAUSE_SECONDS:
            return False
        buckets = self._all, self._share(about.namespace, now)
        for bucket in buckets:
            bucket.refill(now)
        if any(bucket.tokens < 1 for bucket in buckets):
            return False
        for bucket in buckets:
            bucket.tokens -= 1
        self._latest[uid, reason] = now
        self._latest.move_to_end((uid, reason))
        if len(self._latest) > OBJECTS:
            self._latest.popitem(last=False)
        return True

    def _event(self, about: Regarding, reason: str, note: str, action: str, kind: Kind) -> dict[str, Any]:
        regarding = {"apiVersion": naming.API_VERSION, **asdict(about)}
        return event_body(self._reporter, regarding, reason, note, action=action, now=self._now(), kind=kind)
