"""Tells why attempts were lost with their worker, and declares them lost once its container is known to be dead."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime

from taskflow_core.domain.attempts import RENEWALS_PER_LEASE, AttemptKey, Held
from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Reason
from taskflow_core.errors import Unavailable
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import Death, HoldingsLedger, WorkerDeaths

log = get_logger(__name__)
LOOK_SECONDS = 1.0
LOOKS = 20
"""How often the attempts of a dead worker are looked for, besides while they may be renewed yet: a claim may arrive
after the news of its death."""
MISSED_RENEWALS = 1.2
"""A worker that lives has renewed its leases within this many of its intervals."""
MAX_HELD = 5000
"""Attempts of a namespace that are looked at for those of a dead worker; the leases of the others run out."""


def is_open_attempt(tasks: OpenTasks, attempt: AttemptKey) -> bool:
    """Whether it may be one that runs. A worker may enter any name, and whatever is declared lost gets a token of ours:
    so only the attempt of an open Task of the namespace is.
    """
    known = tasks.get(attempt.uid)
    if known is None or known.task.namespace != attempt.namespace:
        return False
    if known.task.spec.array is not None:
        return attempt.chunk is not None
    return attempt.chunk is None and attempt.attempt == known.task.status.attempt


def void(held: Held, lease_ms: int, ended: datetime) -> bool:
    """Whether the holder of an attempt is dead, given that a container of its pod ended.

    Args:
        held: the attempt.
        lease_ms: how long a lease lasts without renewal.
        ended: when the container ended, by the clock of its node, in whole seconds.
    """
    renewed_ms = held.until_ms - lease_ms
    # The claim does not say which container made it, and the next one may have started before anybody knows. What that
    # one holds was renewed after the end, and is renewed again in time, whatever the clock of the node says.
    missed = held.now_ms - renewed_ms > MISSED_RENEWALS * lease_ms / RENEWALS_PER_LEASE
    return missed and renewed_ms < (ended.timestamp() + 1) * 1000


class LostWorkers:
    """Joins the deaths of workers to the attempts that they held.

    Args:
        tasks: the open Tasks.
        ledger: who holds what.
        deaths: what is known of the pods of workers.
        lease_seconds: how long a lease lasts without renewal.
        sleep: how to wait.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        ledger: HoldingsLedger,
        deaths: WorkerDeaths,
        *,
        lease_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._tasks = tasks
        self._ledger = ledger
        self._deaths = deaths
        self._lease_ms = int(lease_seconds * 1000)
        self._sleep = sleep
        self._looks = LOOKS + int(lease_seconds * MISSED_RENEWALS / RENEWALS_PER_LEASE / LOOK_SECONDS)
        self._dead: dict[tuple[str, str], tuple[datetime, int]] = {}
        """Pods whose container ended: when, and the looks that are left."""
        self._changed = asyncio.Event()
        self._errors = ConsecutiveErrors("lost-workers")

    def worker_ended(self, namespace: str, pod: str, ended: datetime) -> None:
        """The container of a worker ended; what it held is looked for soon."""
        self._dead[namespace, pod] = ended, self._looks
        self._changed.set()

    async def run(self) -> None:
        """Declare lost what dead workers held, until cancelled."""
        while True:
            await self._changed.wait()
            self._errors.check()
            try:
                await self.look()
            except Unavailable as error:
                dependency_health.failed(error)
            except Exception as error:  # noqa: BLE001 - the leases run out in any case
                self._errors.record(error)
            else:
                self._errors.clear()
            if not self._dead:
                self._changed.clear()
                continue
            await self._sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once at what dead workers hold.

        Raises:
            Unavailable: Redis does not answer.
        """
        for (namespace, pod), (ended, looks) in list(self._dead.items()):
            found = await self._ledger.held(namespace, pod, limit=MAX_HELD)
            dead = [
                each for each in found if is_open_attempt(self._tasks, each.key) and void(each, self._lease_ms, ended)
            ]
            if dead:
                holders = {each.key: each.claim for each in dead}
                failures = self._failures((each.key, each.worker) for each in dead)
                lost = await self._ledger.expire(list(holders), failures=failures, holders=holders)
                for key in lost:
                    self._count(key, pod)
            if self._dead.get((namespace, pod)) == (ended, looks):
                del self._dead[namespace, pod]
                if looks > 1:
                    self._dead[namespace, pod] = ended, looks - 1

    async def explain(self, expired: Sequence[AttemptKey]) -> dict[AttemptKey, Failure]:
        """Why attempts whose lease ran out were lost, as far as is known.

        Raises:
            Unavailable: Redis does not answer.
        """
        states = await self._ledger.states(expired)
        return self._failures((key, state.claim.partition("|")[0]) for key, state in zip(expired, states, strict=True))

    def _failures(self, lost: Iterable[tuple[AttemptKey, str]]) -> dict[AttemptKey, Failure]:
        """The failure of each attempt, by the worker that held it: `pod:nonce`."""
        workers = dict(lost)
        together = Counter((key.namespace, worker) for key, worker in workers.items())
        found: dict[AttemptKey, Failure] = {}
        for key, worker in workers.items():
            death = self._deaths.death(key.namespace, worker.rpartition(":")[0])
            if death is not None:
                found[key] = _failure(death, together[key.namespace, worker] - 1)
        return found

    def _count(self, key: AttemptKey, pod: str) -> None:
        known = self._tasks.get(key.uid)
        metrics.LOST.labels(queue=metrics.queue_label(known.task.spec.queue) if known else metrics.UNKNOWN).inc()
        log.warning("worker_died", namespace=key.namespace, pod=pod, member=key.member)


def _failure(death: Death, beside: int) -> Failure:
    if death.reason is not Reason.OUT_OF_MEMORY or beside == 0:
        return Failure(reason=death.reason, message=death.message)
    others = f"{beside} more attempt{'s' if beside > 1 else ''} ran in the container"
    message = f"{death.message}. {others}; which of them used the memory is not known"
    return Failure(reason=death.reason, message=message, beside=beside)
