"""Leader election by a Lease, with the durations of Kubernetes' own components (15, 10 and 2 seconds). Others stand by.

Two operators never write at once. A holder that could not renew for `RENEW_DEADLINE` is in doubt: it writes nothing and
reads no events. Another operator may take the Lease only `LEASE_DURATION` after the last renewal that it saw. Each
change is guarded by the Lease's resourceVersion, so when the API server is back the holder learns at once whether it
still holds the Lease. If not, its process ends. An API server that is unavailable for everybody therefore costs a
pause, not a restart.

Whether a Lease has expired is judged by the process' own monotonic clock, from the moment its last change was seen: the
clocks of two machines may differ.

`kubernetes.aio.leaderelection` is not used: it judges by the wall clock, sets no bound on a renewal that hangs, ends on
a lost connection, and cannot release.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from taskflow_core.errors import Conflict, Dependency, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import Requests, resource_path
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health

log = get_logger(__name__)
LEASE_NAME = "taskflow-operator"
LEASE_DURATION = 15.0
RENEW_DEADLINE = 10.0
RETRY_PERIOD = 2.0
REQUEST_SECONDS = 5.0
LEASES = "apis/coordination.k8s.io/v1"


class LeaderElection(Protocol):
    """Whether this process is the leader."""

    def is_confirmed(self) -> bool:
        """Whether it may write."""

    @property
    def holder(self) -> str:
        """The leader, as far as is known; empty if there is none."""

    async def acquire(self) -> None:
        """Wait until this process leads."""

    async def hold(self) -> None:
        """Stay the leader, until cancelled or lost."""

    async def until_confirmed(self) -> None:
        """Wait until leadership is beyond doubt."""

    async def release(self) -> None:
        """Let another process lead, after the last write."""


class LeaseLostError(Exception):
    """Another process holds the Lease."""


class AlwaysLeader:
    """Leadership of the only operator; whoever runs it makes sure of that."""

    holder = ""

    def is_confirmed(self) -> bool:
        """Always."""
        return True

    async def acquire(self) -> None:
        """Return at once."""

    async def hold(self) -> None:
        """Wait for cancellation."""
        await asyncio.Event().wait()

    async def until_confirmed(self) -> None:
        """Return at once."""

    async def release(self) -> None:
        """Do nothing."""


class LeaseLeaderElection:
    """Leadership by the Lease `taskflow-operator`.

    Args:
        kube: the API server.
        namespace: where the Lease is.
        identity: of this process. A process that finds its identity in the Lease continues with it at once, so no two
            may share one; if two do, the first one ends.
        clock: monotonic seconds.
        now: the time, for people who read the Lease.
        sleep: how to wait.
    """

    def __init__(
        self,
        kube: Requests,
        namespace: str,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._lease: dict[str, Any] = {}
        self._renewed_at: float | None = None
        self._seen: Mapping[str, Any] = {}
        self._seen_at = 0.0
        self._refusal = ""

    def is_confirmed(self) -> bool:
        """Whether the Lease is ours beyond doubt."""
        return self._renewed_at is not None and self._clock() - self._renewed_at < RENEW_DEADLINE

    @property
    def holder(self) -> str:
        """The holder of the Lease, when it was last read."""
        return str(self._seen.get("holderIdentity") or "")

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while True:
            try:
                if await self._try():
                    log.info("leading", identity=self._identity, lease=f"{self._namespace}/{LEASE_NAME}")
                    return
            except Unavailable as error:
                dependency_health.failed(error)
            except TaskflowError as error:
                # Logged once for each reason, such as a missing namespace or permission.
                if str(error) != self._refusal:
                    self._refusal = str(error)
                    log.error("lease_refused", lease=f"{self._namespace}/{LEASE_NAME}", error=str(error))  # noqa: TRY400
            await self._sleep(self._pause())

    async def hold(self) -> None:
        """Renew until cancelled.

        Raises:
            LeaseLostError: another process has it. Nothing may be written any more.
        """
        doubt = False
        while True:
            await self._sleep(RETRY_PERIOD)
            try:
                await self._renew()
            except Unavailable as error:
                dependency_health.failed(error)
            except TaskflowError as error:
                log.error("lease_refused", lease=f"{self._namespace}/{LEASE_NAME}", error=str(error))  # noqa: TRY400
            except LeaseLostError:
                self._renewed_at = None
                raise
            if doubt == self.is_confirmed():
                doubt = not self.is_confirmed()
                log.warning("leadership_in_doubt" if doubt else "leadership_confirmed", identity=self._identity)

    async def until_confirmed(self) -> None:
        """Wait until leadership is beyond doubt."""
        while not self.is_confirmed():
            await self._sleep(0.2)

    async def release(self) -> None:
        """Leave the Lease without a holder, so that a standby need not wait until it expires."""
        if not self.is_confirmed():
            return
        # No holder and the shortest duration, as client-go's release writes.
        spec = {**self._lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._time()}
        self._renewed_at = None
        try:
            await self._put(spec)
        except TaskflowError as error:
            log.warning("lease_not_released", error=str(error))
        else:
            log.info("lease_released", identity=self._identity)

    async def _try(self) -> bool:
        lease = await self._get()
        if lease is None:
            return await self._create()
        spec = lease.get("spec") or {}
        if spec != self._seen:
            if spec.get("holderIdentity") != self._seen.get("holderIdentity"):
                log.info("standing_by", identity=self._identity, holder=spec.get("holderIdentity") or "")
            self._seen, self._seen_at = spec, self._clock()
        if self.holder not in ("", self._identity) and self._clock() < self._runs_out():
            return False
        began = self._clock()
        self._lease = lease
        transitions = int(spec.get("leaseTransitions") or 0) + (self.holder != self._identity)
        try:
            await self._put(self._ours(transitions))
        except (Conflict, NotFound):
            # Another standby was faster.
            return False
        self._renewed_at = began
        return True

    async def _renew(self) -> None:
        began = self._clock()
        try:
            await self._put({**self._lease["spec"], "renewTime": self._time()})
        except (Conflict, NotFound):
            await self._find_out(began)
        self._renewed_at = began

    async def _find_out(self, began: float) -> None:
        """Somebody changed the Lease: a user changed its labels, the answer to a renewal was lost, or another process
        took it.
        """
        lease = await self._get()
        if lease is None:
            if not await self._create():
                raise LeaseLostError("the Lease was deleted, and another process created it again")
            self._renewed_at = began
            return
        spec, ours = lease.get("spec") or {}, self._lease["spec"]
        if spec.get("holderIdentity") != self._identity:
            self._seen = spec
            raise LeaseLostError(f"the Lease is held by {spec.get('holderIdentity') or 'nobody'}")
        if spec.get("acquireTime") != ours["acquireTime"]:
            raise LeaseLostError(f"another process calls itself {self._identity} and took the Lease")
        self._lease = lease
        await self._put({**spec, "renewTime": self._time()})

    def _runs_out(self) -> float:
        return self._seen_at + float(self._seen.get("leaseDurationSeconds") or LEASE_DURATION)

    def _pause(self) -> float:
        # At most until it expires, so that a takeover takes no longer than the duration.
        left = self._runs_out() - self._clock() if self.holder else RETRY_PERIOD
        return min(RETRY_PERIOD, max(left, 0.05))

    def _time(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _ours(self, transitions: int) -> dict[str, Any]:
        now = self._time()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(LEASE_DURATION),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    async def _get(self) -> dict[str, Any] | None:
        try:
            return await self._ask("GET", self._path())
        except NotFound:
            return None

    async def _create(self) -> bool:
        began = self._clock()
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE_NAME, "namespace": self._namespace},
            "spec": self._ours(0),
        }
        try:
            self._took(await self._ask("POST", resource_path(LEASES, "leases", self._namespace), body))
        except Conflict:
            return False
        self._renewed_at = began
        return True

    async def _put(self, spec: Mapping[str, Any]) -> None:
        self._took(await self._ask("PUT", self._path(), {**self._lease, "spec": dict(spec)}))

    def _took(self, lease: dict[str, Any]) -> None:
        self._lease = lease
        self._seen, self._seen_at = lease["spec"], self._clock()
        dependency_health.succeeded(Dependency.API_SERVER)

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._kube.request(method, path, body)
        except TimeoutError as error:
            raise Unavailable(
                f"API server: {method} {path}: no answer within {REQUEST_SECONDS:.0f} s", Dependency.API_SERVER
            ) from error

    def _path(self) -> str:
        return resource_path(LEASES, "leases", self._namespace, LEASE_NAME)
