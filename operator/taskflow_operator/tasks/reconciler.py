"""Compares what should be with what is: expired leases and lost messages each second, all open Tasks every minute."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence

from taskflow_core.domain import naming
from taskflow_core.domain.attempts import AttemptKey, Survey
from taskflow_core.domain.message import entered_ms
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Dependency, TaskflowError, Unavailable
from taskflow_core.ledger.namespaces import Namespaces
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.delivery import Delivery
from taskflow_operator.tasks.lost_workers import LostWorkers, is_open_attempt
from taskflow_operator.tasks.observer import Observer
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import ChunkController, RecoveryLedger
from taskflow_operator.tasks.recovery import Recovery
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
TICK_SECONDS = 1.0
GRACE_MS = 5000
"""A message is not missed before this time: a worker that fetched it may not have claimed it yet, and it is in no
list."""
SCAN = 1000
LOOK = 200
"""Tasks that are compared with the ledger in one go; everything else waits for so many."""
OUTAGE_SECONDS = 3.0
MIN_SCAN = 20
"""Attempts of a namespace that one tick looks at, however many namespaces there are."""
AT_ONCE = 100
"""Namespaces that one round trip looks at."""
LOGGED = 20
"""Attempts that one tick declares lost of which each is logged."""
ALL_TICKS = 30
"""Ticks between two that include namespaces without open Tasks."""
PAUSE_FACTOR, MAX_PAUSE_FACTOR = 20, 5
"""The pause between two lists of all open Tasks is at least this many times what the last list took, and at most this
many times the resync interval. A list of 100,000 open Tasks takes half a minute, of the API server too, and the watch
misses next to nothing."""


def pause_after(resync_seconds: float, took: float) -> float:
    """Seconds until all open Tasks are listed again, after a list that took so many."""
    return max(resync_seconds, min(PAUSE_FACTOR * took, MAX_PAUSE_FACTOR * resync_seconds))


def lost_messages(
    waiting: Sequence[tuple[AttemptKey, int]], lists: Mapping[AttemptKey, str], heads: Mapping[str, str | None]
) -> list[AttemptKey]:
    """Attempts in the ledger whose message is in no queue any more.

    Args:
        waiting: attempts and since when they are in the ledger (ms).
        lists: for each attempt, the Redis list that its message went to.
        heads: for each list, the message that is served next, which is the oldest.

    A list is served in order, so a message is gone when its list is empty or begins with a later one.
    """
    lost: list[AttemptKey] = []
    for name, since in waiting:
        if name not in lists:
            continue
        head = heads[lists[name]]
        oldest = entered_ms(head)
        if head is None or (oldest is not None and oldest > since):
            lost.append(name)
    return lost


class Reconciler:
    """Finds what events and the watch did not bring.

    Args:
        tasks: the open Tasks.
        ledger: work in flight.
        work_queue: where Tasks are added that have to be looked at.
        delivery: sends lost messages again.
        arrays: send the lost messages of their chunks again.
        observer: lists the open Tasks.
        recovery: restores what Redis lost.
        lost_workers: know why leases ran out.
        lease_name: names this operator in Redis.
        namespaces: which have keys there.
        resync_seconds: the least pause between two lists of all open Tasks.
        caught_up: when everything that was in the streams of a namespace had been read (monotonic seconds).
        read_again: has the streams of a namespace read.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        ledger: RecoveryLedger,
        work_queue: WorkQueue,
        delivery: Delivery,
        arrays: ChunkController,
        observer: Observer,
        recovery: Recovery,
        lost_workers: LostWorkers,
        *,
        lease_name: str,
        namespaces: Namespaces,
        resync_seconds: float,
        caught_up: Callable[[str], float],
        read_again: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._ledger = ledger
        self._work_queue = work_queue
        self._delivery = delivery
        self._arrays = arrays
        self._observer = observer
        self._recovery = recovery
        self._lost_workers = lost_workers
        self._lease_name = lease_name
        self._resync = self.pause = resync_seconds
        """The least pause between two lists of all open Tasks, and the present one."""
        self._caught_up = caught_up
        self._read_again = read_again
        self._namespaces = namespaces
        self._clock = clock
        self._contact = clock()
        self._scanned: dict[str, int] = {}
        """Up to which ledger time the attempts of a namespace were looked at, where there are too many for one look."""
        self._ticks = 0
        self._lost = False
        """Redis lost its data, and not all namespaces are open again."""
        self._errors = ConsecutiveErrors("reconcile")

    @property
    def contact_age(self) -> float:
        """Seconds since Redis last answered."""
        return self._clock() - self._contact

    async def start(self) -> None:
        """Begin or join the epoch, before anything is dispatched. If Redis does not know Tasks that were in flight,
        recover.

        Raises:
            Unavailable: Redis does not answer.
            Conflict: the operator of another Lease works with it.
        """
        await self._check_epoch()
        await self._namespaces.load()
        await self._namespaces.ensure(self._tasks.namespaces())
        self._contact = self._clock()

    def loops(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs until cancelled."""
        return self._tick_forever(), self._resync_forever()

    async def _tick_forever(self) -> None:
        while True:
            self._errors.check()
            try:
                with metrics.RECONCILE.labels(kind="tick").time():
                    await self._tick()
            except Unavailable as error:
                dependency_health.failed(error)
            except Exception as error:  # noqa: BLE001 - the next tick may succeed
                self._errors.record(error)
            else:
                dependency_health.succeeded(Dependency.REDIS)
                self._errors.clear()
            await asyncio.sleep(TICK_SECONDS)

    async def _tick(self) -> None:
        await self._check_epoch()
        if self.contact_age > OUTAGE_SECONDS:
            self._recovery.outage_over()
        self._contact = self._clock()
        # What is left of a namespace without open Tasks is nobody's, and not urgent.
        every = self._ticks % ALL_TICKS == 0
        self._ticks += 1
        names = sorted(self._namespaces.known if every else self._tasks.namespaces())
        for start in range(0, len(names), AT_ONCE):
            await self._survey([name for name in names[start : start + AT_ONCE] if not self._recovery.grace(name)])

    async def _survey(self, names: Sequence[str]) -> None:
        limit = max(MIN_SCAN, SCAN // max(1, len(names)))
        after = {name: self._scanned.pop(name, 0) for name in names}
        surveys = await self._ledger.survey(after, grace_ms=GRACE_MS, limit=limit)
        await self._expire(surveys)
        for each in surveys:
            if each.problem:
                log.warning("namespace_unreadable", namespace=each.namespace, error=each.problem)
            # The next tick continues where this one ended, so that a long queue does not hide a loss behind it.
            if len(each.waiting) == limit:
                self._scanned[each.namespace] = each.waiting[-1][1]
        await self._publish_lost([waiting for each in surveys for waiting in each.waiting])

    async def _expire(self, surveys: Sequence[Survey]) -> None:
        expired: list[AttemptKey] = []
        nobodys: list[tuple[str, str]] = []
        for each in surveys:
            nobodys += [(each.namespace, name) for name in each.nobodys]
            for attempt in each.expired:
                if is_open_attempt(self._tasks, attempt):
                    expired.append(attempt)
                else:
                    nobodys.append((attempt.namespace, attempt.member))
        if removed := len(nobodys) + sum(each.removed for each in surveys):
            log.warning("leases_removed", count=removed, namespace=(nobodys or [("", "")])[0][0])
        if not expired and not nobodys:
            return
        lost = await self._ledger.expire(expired, nobodys, failures=await self._lost_workers.explain(expired))
        for number, attempt in enumerate(lost):
            known = self._tasks.get(attempt.uid)
            queue = metrics.queue_label(known.task.spec.queue) if known else metrics.UNKNOWN
            if number < LOGGED:
                fields = log_fields(known.task) if known else {}
                log.warning("lease_expired", member=attempt.member, of=len(lost), **fields)
            metrics.LOST.labels(queue=queue).inc()

    async def _check_epoch(self) -> None:
        if (other := await self._ledger.serve(self._lease_name)) != self._lease_name:
            raise Conflict(
                f"the operator of Lease {other} works with this Redis, and this one has Lease {self._lease_name}: "
                "use a database for each"
            )
        self._lost = await self._ledger.begin_epoch(secrets.token_hex(8)) or self._lost
        if self._lost:
            await self._namespaces.data_lost(self._tasks.namespaces())
            self._lost = False

    async def _publish_lost(self, waiting: Sequence[tuple[AttemptKey, int]]) -> None:
        tasks = self._with_messages([attempt for attempt, _ in waiting])
        lists = {
            name: naming.broker_list(task.namespace, task.spec.queue, task.spec.priority)
            for name, task in tasks.items()
        }
        distinct = sorted(set(lists.values()))
        if not distinct:
            return
        heads = dict(zip(distinct, await self._ledger.oldest_messages(distinct), strict=True))
        if lost := lost_messages(waiting, lists, heads):
            await self._republish({name: tasks[name] for name in lost})

    def _with_messages(self, attempts: Sequence[AttemptKey]) -> dict[AttemptKey, Task]:
        """The Tasks of those attempts that must have a message in a queue."""
        found: dict[AttemptKey, Task] = {}
        for attempt in attempts:
            known = self._tasks.get(attempt.uid)
            # An attempt in a pod of its own has a Job instead of a message, and its own controller.
            if known is None or known.task.isolated or known.closing or known.task.namespace != attempt.namespace:
                continue
            if self._waits(known.task, attempt):
                found[attempt] = known.task
        return found

    def _waits(self, task: Task, attempt: AttemptKey) -> bool:
        if attempt.chunk is None:
            return task.status.attempt == attempt.attempt
        return self._arrays.waits(task.uid, attempt.attempt, attempt.chunk)

    async def _republish(self, lost: Mapping[AttemptKey, Task]) -> None:
        log.warning("messages_lost", count=len(lost), **log_fields(next(iter(lost.values()))))
        for task in lost.values():
            metrics.REPUBLISHED.labels(queue=metrics.queue_label(task.spec.queue)).inc()
        await self._delivery.republish_all([task for task in lost.values() if task.spec.array is None])
        for attempt in lost:
            if attempt.chunk is not None:
                await self._arrays.republish_chunks(attempt.uid, [(attempt.attempt, attempt.chunk)])

    async def _resync_forever(self) -> None:
        while True:
            await asyncio.sleep(self.pause)
            began = self._clock()
            try:
                with metrics.RECONCILE.labels(kind="resync").time():
                    await self._observer.list()
            except TaskflowError as error:
                dependency_health.failed(error)
                continue
            except Exception as error:  # noqa: BLE001 - the next list may succeed
                self._errors.record(error)
                continue
            self.pause = pause_after(self._resync, self._clock() - began)
            self._errors.clear()
            await self._check_waiting()
            await self._recovery.check_running(self._caught_up, self._read_again)

    async def _check_waiting(self) -> None:
        """Look again at every Task that waits and is not known to be in the ledger.

        Nearly all queued Tasks are in it, and asking takes no snapshot of the Task, no script and no turn at the
        dispatcher.
        """
        waiting = [
            known.task
            for known in self._tasks
            if not known.closing
            and known.task.status.phase is not Phase.RUNNING
            and not self._recovery.grace(known.task.namespace)
        ]
        for start in range(0, len(waiting), LOOK):
            part = waiting[start : start + LOOK]
            queued = [task for task in part if task.status.phase is Phase.QUEUED and task.spec.array is None]
            try:
                states = await self._ledger.states([AttemptKey.current(task) for task in queued])
            except Unavailable as error:
                dependency_health.failed(error)
                return
            entered = {task.uid for task, state in zip(queued, states, strict=True) if state.waiting}
            self._work_queue.add_resync(task.uid for task in part if task.uid not in entered)
            # However many there are, other coroutines run in between.
            await asyncio.sleep(0)
