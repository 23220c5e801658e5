from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence

from taskflow_core.domain import naming
from taskflow_core.domain.events import Failure
from taskflow_core.domain.message import entered_ms
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Dependency, TaskflowError, Unavailable
from taskflow_core.ledger.operator import OperatorLedger, State
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.arrays.controller import Arrays
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.dispatcher import Dispatcher
from taskflow_operator.tasks.observer import Observer
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
TICK_SECONDS = 1.0
GRACE_MS = 5000
"""A message is not missed before this: fetched by a worker, it is in no list until it is claimed."""
SCAN = 1000
LOOK = 200
"""Tasks that are held against the ledger in one go: all else waits for so many."""
OUTAGE_SECONDS = 3.0
TRIM_TICKS = 10
"""Between two trimmings of the event stream."""
PAUSE_TIMES, LONGEST_PAUSES = 20, 5
"""Between two lists of all open Tasks at least this many times what the last one took, up to so many ordinary pauses: of 100,000
open Tasks it takes half a minute, of the API server as well, and the watch misses next to nothing."""


def pause_after(resync_seconds: float, took: float) -> float:
    """Seconds until all open Tasks are listed again, after a list that took so many."""
    return max(resync_seconds, min(PAUSE_TIMES * took, LONGEST_PAUSES * resync_seconds))


def lost_messages(waiting: Sequence[tuple[str, int]], lists: dict[str, str], heads: dict[str, str | None]) -> list[str]:
    """Members whose message is in no queue any more.

    Args:
        waiting: members of the ledger and since when (ms).
        lists: for each member, the Redis list that its message went to.
        heads: for each list, the message that is served next, the oldest.

    A list is served in order, so a message is gone when its list is empty or begins with a later one.
    """
    lost: list[str] = []
    for name, since in waiting:
        if name not in lists:
            continue
        head = heads[lists[name]]
        oldest = entered_ms(head)
        if head is None or (oldest is not None and oldest > since):
            lost.append(name)
    return lost


class Reconciler:
    """Finds what fell through: expired leases, lost messages, lost Redis data, Tasks that the watch missed."""

    def __init__(
        self,
        tasks: OpenTasks,
        ledger: OperatorLedger,
        work_queue: WorkQueue,
        dispatcher: Dispatcher,
        arrays: Arrays,
        observer: Observer,
        *,
        lease_name: str,
        lease_seconds: float,
        resync_seconds: float,
        caught_up: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._ledger = ledger
        self._work_queue = work_queue
        self._dispatcher = dispatcher
        self._arrays = arrays
        self._observer = observer
        self._lease_name = lease_name
        self._lease = lease_seconds
        self._resync = self.pause = resync_seconds
        """The least pause between two lists of all open Tasks, and the present one."""
        self._caught_up = caught_up
        self._clock = clock
        self._contact = clock()
        self._hold_until = 0.0
        self._scanned_ms = self._ticks = 0
        self._errors = ConsecutiveErrors("reconcile")
        self._recoveries: set[asyncio.Task[None]] = set()
        self._was_adrift: set[tuple[str, int]] = set()
        self._looked = 0.0

    @property
    def contact_age(self) -> float:
        """Seconds since Redis last answered."""
        return self._clock() - self._contact

    async def start(self) -> None:
        """Begin or join the epoch, before anything is dispatched. If Redis knows nothing of Tasks that were in chunk, recover.

        Raises:
            Unavailable: Redis does not answer.
            Conflict: the operator of another Lease works with it.
        """
        await self._check_epoch()
        self._contact = self._clock()

    def loops(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs until cancelled: a look every second, and a list every `resync_seconds` or less often."""
        return self._tick_for_ever(), self._resync_for_ever()

    def recover(self, why: str) -> None:
        """Redis forgot things: after half a lease, in which workers enter again what they run, take stock of what was in chunk.

        They renew three times a lease, so each that is well has renewed by then. One that is slower finds its attempt given to another.
        """
        in_flight: list[Task] = []
        for known in self._tasks:
            if known.task.status.phase in (Phase.QUEUED, Phase.RUNNING) and not known.closing:
                known.held = True
                in_flight.append(known.task)
        seconds = self._lease / 2
        self._hold(seconds)
        self._arrays.data_lost(seconds)
        if in_flight:
            log.warning("recovering", why=why, in_flight=len(in_flight), seconds=seconds)
            self._start(self._recover(in_flight, seconds))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        job = asyncio.create_task(work)
        self._recoveries.add(job)
        job.add_done_callback(self._recoveries.discard)

    async def _tick_for_ever(self) -> None:
        while True:
            self._errors.check()
            try:
                with metrics.RECONCILE.labels(kind="tick").time():
                    await self._tick()
            except Unavailable as error:
                dependency_health.failed(error)
            except Exception as error:  # noqa: BLE001 - the next look may well succeed
                self._errors.record(error)
            else:
                dependency_health.succeeded(Dependency.REDIS)
                self._errors.clear()
            await asyncio.sleep(TICK_SECONDS)

    async def _tick(self) -> None:
        await self._check_epoch()
        if self.contact_age > OUTAGE_SECONDS:
            # Workers could not renew while Redis was away: nobody is declared lost until they had one lease's time to.
            self._hold(self._lease)
        self._contact = self._clock()
        if self._clock() < self._hold_until:
            return
        for name in await self._ledger.expire():
            known = self._tasks.get(name.partition(":")[0])
            queue = metrics.queue_label(known.task.spec.queue) if known else metrics.UNKNOWN
            log.warning("lease_expired", member=name, **(log_fields(known.task) if known else {}))
            metrics.LOST.labels(queue=queue).inc()
        await self._publish_lost()
        self._ticks += 1
        if self._ticks % TRIM_TICKS == 0:
            await self._ledger.trim_stream()

    async def _check_epoch(self) -> None:
        if (other := await self._ledger.serve(self._lease_name)) != self._lease_name:
            raise Conflict(
                f"the operator of Lease {other} works with this Redis, and this one has Lease {self._lease_name}: a database for each"
            )
        if await self._ledger.begin_epoch(secrets.token_hex(8)):
            self.recover("Redis is new or lost its data")

    async def _publish_lost(self) -> None:
        before = await self._ledger.now_ms() - GRACE_MS
        waiting = await self._ledger.waiting(after_ms=self._scanned_ms, before_ms=before, limit=SCAN)
        # The next look goes on where this one ended, so that a long queue does not hide a loss behind it.
        self._scanned_ms = waiting[-1][1] if len(waiting) == SCAN else 0
        tasks: dict[str, Task] = {}
        for name, _ in waiting:
            try:
                uid, attempt, chunk = naming.split_member(name)
            except ValueError:
                # Nothing of ours has such a name, so it has no message to miss.
                continue
            known = self._tasks.get(uid)
            # What runs in a pod of its own has a Job in place of a message, and others look after that.
            if known is None or known.task.isolated or known.closing:
                continue
            if (chunk is None and known.task.status.attempt == attempt) or (
                chunk is not None and self._arrays.waits(uid, (attempt, chunk))
            ):
                tasks[name] = known.task
        lists = {
            name: naming.broker_list(task.namespace, task.spec.queue, task.spec.priority)
            for name, task in tasks.items()
        }
        distinct = sorted(set(lists.values()))
        if not distinct:
            return
        heads = dict(zip(distinct, await self._ledger.oldest_messages(distinct), strict=True))
        lost = lost_messages(waiting, lists, heads)
        if lost:
            log.warning("messages_lost", count=len(lost), **log_fields(tasks[lost[0]]))
            for name in lost:
                metrics.REPUBLISHED.labels(queue=metrics.queue_label(tasks[name].spec.queue)).inc()
            await self._dispatcher.publish_again([tasks[name] for name in lost if tasks[name].spec.array is None])
            for name in lost:
                uid, attempt, chunk = naming.split_member(name)
                if chunk is not None:
                    await self._arrays.republish(uid, [(attempt, chunk)])

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.pause)
            began = self._clock()
            try:
                with metrics.RECONCILE.labels(kind="resync").time():
                    await self._observer.list_open()
            except TaskflowError as error:
                dependency_health.failed(error)
                continue
            except Exception as error:  # noqa: BLE001 - the next list may well succeed
                self._errors.record(error)
                continue
            self.pause = pause_after(self._resync, self._clock() - began)
            self._errors.clear()
            if self._clock() < self._hold_until:
                continue
            await self._look_at_waiting()
            await self._look_after_running()

    async def _look_at_waiting(self) -> None:
        """Enter again what is in no ledger, claim or lease: that is harmless, and done for what is not known to be in the ledger.

        Nearly all of what is queued is, and to ask takes no snapshot of the Task, no script and no turn at the dispatcher.
        """
        waiting = [
            known.task for known in self._tasks if not known.closing and known.task.status.phase is not Phase.RUNNING
        ]
        for start in range(0, len(waiting), LOOK):
            part = waiting[start : start + LOOK]
            queued = [task for task in part if task.status.phase is Phase.QUEUED and task.spec.array is None]
            try:
                states = await self._ledger.states([(task.uid, task.status.attempt) for task in queued])
            except Unavailable as error:
                dependency_health.failed(error)
                return
            there = {task.uid for task, state in zip(queued, states, strict=True) if state.waiting}
            self._work_queue.sweep(task.uid for task in part if task.uid not in there)
            # However many they are, others come in between.
            await asyncio.sleep(0)

    async def _look_after_running(self) -> None:
        """A Task shown as running that nobody has a lease on, at two looks in a row: its end was lost on the way to us.

        Unless its end is in the stream still: so all that was there at the first look must have been read by the second.
        """
        if self._was_adrift and self._caught_up() <= self._looked:
            return
        self._looked = self._clock()
        running = [
            known.task
            for known in self._tasks
            if known.task.status.phase is Phase.RUNNING and not known.closing and known.task.spec.array is None
        ]
        found: set[tuple[str, int]] = set()
        for start in range(0, len(running), SCAN):
            part = running[start : start + SCAN]
            lost: list[Task] = []
            try:
                states = await self._ledger.states([(task.uid, task.status.attempt) for task in part])
                for task, state in zip(part, states, strict=True):
                    attempt = task.uid, task.status.attempt
                    known = self._tasks.get(task.uid)
                    if known is None or known.closing or known.held or known.task.status.attempt != attempt[1]:
                        continue
                    if not _adrift(known.task, state):
                        continue
                    found.add(attempt)
                    if attempt in self._was_adrift:
                        log.warning("attempt_adrift", uid=task.uid, attempt=attempt[1], claim=state.claim)
                        lost.append(task)
                await self._give_up(lost)
            except Unavailable:
                return
        self._was_adrift = found

    def _hold(self, seconds: float) -> None:
        self._hold_until = max(self._hold_until, self._clock() + seconds)

    async def _recover(self, in_flight: Sequence[Task], seconds: float) -> None:
        await asyncio.sleep(seconds)
        for start in range(0, len(in_flight), SCAN):
            part = in_flight[start : start + SCAN]
            while True:
                try:
                    await self._take_stock(part)
                except Unavailable as error:
                    dependency_health.failed(error)
                    await asyncio.sleep(TICK_SECONDS)
                    continue
                except Exception as error:  # noqa: BLE001 - the next look at what runs finds what was not given up
                    self._errors.record(error)
                break
            for task in part:
                if (known := self._tasks.get(task.uid)) is not None:
                    known.held = False
                    self._work_queue.wake(task.uid)

    async def _take_stock(self, in_flight: Sequence[Task]) -> None:
        """Give up what ran and is held by nobody. What only waited is entered again when it is woken."""
        states = await self._ledger.states([(task.uid, task.status.attempt) for task in in_flight])
        adrift: list[Task] = []
        for task, state in zip(in_flight, states, strict=True):
            known = self._tasks.get(task.uid)
            if known is None or known.closing or known.task.status.attempt != task.status.attempt:
                continue
            if task.spec.array is None and _adrift(known.task, state):
                adrift.append(task)
        await self._give_up(adrift)

    async def _give_up(self, tasks: Sequence[Task]) -> None:
        """Their `lost` events do the rest, behind an end that may be in the stream already."""
        failure = Failure(
            reason=Reason.BROKER_DATA_LOST,
            message="nobody holds the attempt any more, and how it ended was lost: Redis forgot it, or the event was lost",
        )
        if tasks:
            await self._ledger.give_up([(task.uid, task.status.attempt) for task in tasks], failure)


def _adrift(task: Task, state: State) -> bool:
    """Nobody holds what was in chunk, and it cannot be entered again: it ran, or somebody had it."""
    if state.leased or state.waiting:
        return False
    return task.status.phase is Phase.RUNNING or (task.status.phase is Phase.QUEUED and bool(state.claim))
