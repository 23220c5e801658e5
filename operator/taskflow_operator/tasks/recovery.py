"""Restores what Redis lost: waits until workers have entered again what they run, then gives up what nobody holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence

from taskflow_core.domain.attempts import AttemptKey, State
from taskflow_core.domain.events import Failure
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task
from taskflow_core.errors import Unavailable
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.background import Background
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import ChunkController, RecoveryLedger
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
BATCH = 1000
RETRY_SECONDS = 1.0


class Recovery:
    """Takes stock of work in flight.

    Args:
        tasks: the open Tasks.
        ledger: what Redis knows of their attempts.
        work_queue: where recovered Tasks are added.
        arrays: recover their chunks themselves.
        lease_seconds: how long a silent worker keeps its attempts.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        ledger: RecoveryLedger,
        work_queue: WorkQueue,
        arrays: ChunkController,
        *,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._ledger = ledger
        self._work_queue = work_queue
        self._arrays = arrays
        self._lease = lease_seconds
        self._clock = clock
        self._quiet_until = 0.0
        self._recovering: dict[str, float] = {}
        """Namespaces that lost data, and until when nobody of theirs is declared lost."""
        self._errors = ConsecutiveErrors("reconcile")
        self._background = Background(self._errors)
        self._was_adrift: dict[AttemptKey, float] = {}
        """Attempts that nobody holds, and when that was seen first."""

    def grace(self, namespace: str) -> bool:
        """Nobody of the namespace is declared lost now: workers could not renew their leases, or are entering again
        what they run.
        """
        return self._clock() < max(self._quiet_until, self._recovering.get(namespace, 0.0))

    def outage_over(self) -> None:
        """Redis answers again: workers get one lease's time to renew."""
        self._quiet_until = max(self._quiet_until, self._clock() + self._lease)

    def data_lost(self, namespaces: Collection[str]) -> None:
        """These namespaces lost data in Redis: after half a lease, take stock of what was in flight.

        Workers renew three times a lease, so each that is well has renewed by then. The attempt of a slower one is
        given to another.
        """
        in_flight: list[Task] = []
        for known in self._tasks:
            task = known.task
            if task.namespace not in namespaces or known.closing:
                continue
            if task.status.phase in (Phase.QUEUED, Phase.RUNNING):
                self._tasks.hold(task.uid)
                in_flight.append(task)
        seconds = self._lease / 2
        self._recovering |= dict.fromkeys(namespaces, self._clock() + seconds)
        self._arrays.data_lost(seconds, namespaces)
        if in_flight:
            log.warning("recovering", namespaces=len(namespaces), in_flight=len(in_flight), seconds=seconds)
            self._background.start(self._recover(in_flight, seconds))

    async def _recover(self, in_flight: Sequence[Task], seconds: float) -> None:
        await asyncio.sleep(seconds)
        for start in range(0, len(in_flight), BATCH):
            part = in_flight[start : start + BATCH]
            while True:
                try:
                    await self._take_stock(part)
                except Unavailable as error:
                    dependency_health.failed(error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                except Exception as error:  # noqa: BLE001 - `check_running` finds what was not given up
                    self._errors.record(error)
                break
            for task in part:
                if self._tasks.release(task.uid):
                    self._work_queue.add(task.uid)

    async def _take_stock(self, in_flight: Sequence[Task]) -> None:
        """Give up attempts that ran and are held by nobody. Those that only waited are entered again by the
        dispatcher.
        """
        states = await self._ledger.states([AttemptKey.current(task) for task in in_flight])
        adrift: list[Task] = []
        for task, state in zip(in_flight, states, strict=True):
            known = self._tasks.get(task.uid)
            if known is None or known.closing or known.task.status.attempt != task.status.attempt:
                continue
            if task.spec.array is None and _adrift(known.task, state):
                adrift.append(task)
        await self._give_up(adrift)

    async def check_running(self, caught_up: Callable[[str], float], read_again: Callable[[str], None]) -> None:
        """Find Tasks shown as running that nobody has a lease on, at two looks in a row: their end was lost on its way.

        Their end may still be in the stream, so everything that was there at the first look must be read by the second.

        Args:
            caught_up: when everything that was in the streams of a namespace had been read (monotonic seconds).
            read_again: has the streams of a namespace read.
        """
        running = [
            known.task
            for known in self._tasks
            if known.task.status.phase is Phase.RUNNING
            and not known.closing
            and known.task.spec.array is None
            and not self.grace(known.task.namespace)
        ]
        found: dict[AttemptKey, float] = {}
        for start in range(0, len(running), BATCH):
            try:
                found |= await self._check(running[start : start + BATCH], caught_up)
            except Unavailable:
                return
        self._was_adrift = found
        for namespace in {attempt.namespace for attempt in found}:
            read_again(namespace)

    async def _check(self, running: Sequence[Task], caught_up: Callable[[str], float]) -> dict[AttemptKey, float]:
        found: dict[AttemptKey, float] = {}
        lost: list[Task] = []
        states = await self._ledger.states([AttemptKey.current(task) for task in running])
        for task, state in zip(running, states, strict=True):
            attempt = AttemptKey.current(task)
            known = self._tasks.get(task.uid)
            if known is None or known.closing or known.held or known.task.status.attempt != attempt.attempt:
                continue
            if not _adrift(known.task, state):
                continue
            since = found[attempt] = self._was_adrift.get(attempt, self._clock())
            if attempt in self._was_adrift and caught_up(task.namespace) > since:
                log.warning("attempt_adrift", uid=task.uid, attempt=attempt.attempt, claim=state.claim)
                lost.append(task)
        await self._give_up(lost)
        return found

    async def _give_up(self, tasks: Sequence[Task]) -> None:
        """Their `lost` events do the rest, behind an end that may be in the stream already."""
        failure = Failure(
            reason=Reason.BROKER_DATA_LOST,
            message=(
                "nobody holds the attempt any more, and how it ended was lost: Redis forgot it, or the event was lost"
            ),
        )
        if tasks:
            await self._ledger.give_up([AttemptKey.current(task) for task in tasks], failure)


def _adrift(task: Task, state: State) -> bool:
    """Nobody holds an attempt that was in flight, and it cannot be entered again: it ran, or somebody had it."""
    if state.leased or state.waiting:
        return False
    return task.status.phase is Phase.RUNNING or (task.status.phase is Phase.QUEUED and bool(state.claim))
