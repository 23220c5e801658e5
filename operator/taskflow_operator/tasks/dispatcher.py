"""Looks at Tasks when something changed or is due, decides what to do, and hands the decision to their execution."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import Task
from taskflow_core.errors import TaskflowError
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.background import Background
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.past_runs import PastRuns
from taskflow_operator.tasks.ports import Dependencies, Execution
from taskflow_operator.tasks.rules.decision import Decision, End, Facts, Pools, decide
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
BATCH = 32
"""Tasks dispatched together: the next Task waits for so many. A larger batch costs hardly less for each."""
LOOKUPS = 16
"""Tasks at a time whose dependencies are looked up."""
RETRY_SECONDS = 1.0
GATHER_SECONDS = 0.005
LOOK_AGAIN = timedelta(seconds=5)
"""When to look again at a Task that is held, or whose dependencies could not be looked up."""


class Dispatcher:
    """Takes Tasks from the work queue and decides.

    Args:
        tasks: the open Tasks.
        work_queue: which of them to look at, and when.
        pools: which queues are served.
        dependencies: what Tasks wait for.
        past_runs: whether a Task ran before that shall not run again.
        delivery: runs Tasks that are not arrays.
        arrays: runs arrays.
        now: the time.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        work_queue: WorkQueue,
        pools: Pools,
        dependencies: Dependencies,
        past_runs: PastRuns,
        delivery: Execution,
        arrays: Execution,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tasks = tasks
        self._work_queue = work_queue
        self._pools = pools
        self._dependencies = dependencies
        self._past_runs = past_runs
        self._delivery = delivery
        self._arrays = arrays
        self._now = now
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._asking: dict[str, bool] = {}
        self._errors = ConsecutiveErrors("dispatch")
        self._background = Background(self._errors)

    async def run(self) -> None:
        """Dispatch what is due, until cancelled."""
        while True:
            batch = await self._work_queue.take(BATCH)
            self._errors.check()
            try:
                with metrics.RECONCILE.labels(kind="dispatch").time():
                    await self._dispatch(batch)
            except TaskflowError as error:
                dependency_health.failed(error)
                self._work_queue.put_back(batch)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                # A single Task is dispatched at once. While many are due, those that come meanwhile join the next
                # batch.
                await asyncio.sleep(0 if self._work_queue else GATHER_SECONDS)

    def requeue(self, task: Task) -> None:
        """The priority of a queued Task changed: send it to the other list."""
        self._background.start(self._requeue(task), uid=task.uid)

    async def _requeue(self, task: Task) -> None:
        try:
            await self._execution(task).republish(task)
        except TaskflowError as error:
            # Then it is served by its former priority.
            log.warning("priority_not_changed", uid=task.uid, error=str(error))

    def _executes(self, task: Task, decision: Decision) -> Execution:
        # An array that ran before has no items to look after.
        ran_before = isinstance(decision, End) and decision.ran is not None
        return self._delivery if ran_before else self._execution(task)

    def _execution(self, task: Task) -> Execution:
        return self._delivery if task.spec.array is None else self._arrays

    async def _dispatch(self, uids: Sequence[str]) -> None:
        decisions: list[tuple[Task, Decision]] = []
        for uid in uids:
            if (task := self._free(uid)) is None:
                continue
            if task.spec.depends_on or self._past_runs.wanted(task):
                self._look_up(uid)
                continue
            try:
                decisions.append((task, decide(task, Facts(self._pools), self._now())))
            except Exception as error:  # noqa: BLE001 - one Task at fault; it is looked at again at the next resync
                self._errors.record(error, uid=uid)
            else:
                self._errors.clear()
        await self._apply(decisions)

    async def _apply(self, decisions: Sequence[tuple[Task, Decision]]) -> None:
        for execution in (self._arrays, self._delivery):
            if mine := [each for each in decisions if self._executes(*each) is execution]:
                await execution.apply(mine)

    def _free(self, uid: str) -> Task | None:
        """The Task, if anything may be done with it now."""
        known = self._tasks.get(uid)
        if known is None or known.closing:
            # Whoever closes it adds it to the work queue when that is done.
            return None
        if known.held:
            self._work_queue.add_at(uid, self._now() + LOOK_AGAIN)
            return None
        return known.task

    def _look_up(self, uid: str) -> None:
        """Look up dependencies and past runs beside the loop: that takes time, and must not hold up other Tasks."""
        if uid in self._asking:
            # Something changed since the lookup began.
            self._asking[uid] = True
            return
        self._asking[uid] = True
        self._background.start(self._ask(uid), uid=uid)

    async def _ask(self, uid: str) -> None:
        try:
            while self._asking[uid]:
                async with self._lookups:
                    self._asking[uid] = False
                    await self._decide(uid)
        except TaskflowError as error:
            # This concerns one Task only.
            dependency_health.failed(error)
            self._work_queue.add_at(uid, self._now() + LOOK_AGAIN)
        finally:
            del self._asking[uid]

    async def _decide(self, uid: str) -> None:
        known = self._tasks.get(uid)
        if known is None:
            return
        states, cycle = await self._dependencies.states(known.task)
        ran = await self._past_runs.look(known.task)
        if (task := self._free(uid)) is not None:
            decision = decide(task, Facts(self._pools, states, cycle, ran), self._now())
            await self._apply([(task, decision)])


class PoolChanges:
    """Looks again at the Tasks of a namespace when the queues that are served there change.

    Args:
        tasks: the open Tasks.
        work_queue: where they are added.
    """

    def __init__(self, tasks: OpenTasks, work_queue: WorkQueue) -> None:
        self._tasks = tasks
        self._work_queue = work_queue

    def changed(self, namespace: str) -> None:
        """The queues that are served in the namespace, or whether their pools take anything, changed."""
        for known in self._tasks:
            task = known.task
            if task.namespace != namespace or known.closing:
                continue
            # One without a phase is being decided on now, by what was served a moment ago.
            if task.status.phase in (None, Phase.QUEUED) or task.status.reason == Reason.NO_WORKER_POOL:
                # There may be many, so each waits for its turn.
                self._work_queue.add(task.uid)
