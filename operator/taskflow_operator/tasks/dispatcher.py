from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Protocol

from taskflow_core.broker.publish import Outgoing
from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, Task, TaskStatus
from taskflow_core.errors import TaskflowError
from taskflow_core.ledger.operator import Attempt, Entry, OperatorLedger
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.messages import message_of
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.rules.decision import (
    Decision,
    DependencyState,
    End,
    Enqueue,
    Hold,
    Keep,
    Pools,
    decide,
    no_pool,
)
from taskflow_operator.tasks.snapshots import current_attempt
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
BATCH = 32
"""Tasks dispatched together: who comes next waits for so many. A larger one costs hardly less for each."""
LOOKUPS = 16
"""Tasks at a time whose dependencies are asked for."""
RETRY_SECONDS = 1.0
GATHER_SECONDS = 0.005
LOOK_AGAIN = timedelta(seconds=5)
"""A stop is asked for again until it happened, since a Redis that lost its data lost the request too."""
WAITING_MESSAGE = "waits for a free worker"
WAITING_FOR_POD = "waits for its pod"


class Publishing(Protocol):
    """Where messages go. Raises `Unavailable`."""

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send a batch; harmless to repeat."""


class Launching(Protocol):
    """Pods for the Tasks that run in one of their own."""

    async def launch(self, task: Task, message: Message) -> None:
        """Make the pod of the current attempt; harmless to repeat."""

    def trouble(self, task: Task) -> str | None:
        """Why that pod does not start; None if nothing is known to be wrong."""


class Driving(Protocol):
    """Runs arrays, chunk by chunk."""

    def decided(self, task: Task, decision: Decision) -> None:
        """What is to be done with one now."""

    async def republish(self, uid: str) -> None:
        """Send its chunks again that wait for a worker."""


class Dependencies(Protocol):
    """What a Task waits for."""

    async def states(self, task: Task) -> tuple[Sequence[DependencyState], Sequence[str]]:
        """States of `spec.dependsOn` in its order, and the cycle that the Task is part of, or nothing."""


class Dispatcher:
    """Looks at Tasks when something changed or is due, and does what `decide` says.

    A Task goes into the ledger first and then to the broker. Dying between the two leaves a ledger entry without a message,
    which the reconciler publishes again.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        work_queue: WorkQueue,
        pools: Pools,
        dependencies: Dependencies,
        ledger: OperatorLedger,
        publisher: Publishing,
        launcher: Launching,
        arrays: Driving,
        writer: StatusWriter,
        closer: Closer,
        *,
        queued: Callable[[], None],
        token_key: str,
        quiet_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tasks = tasks
        self._work_queue = work_queue
        self._pools = pools
        self._dependencies = dependencies
        self._ledger = ledger
        self._publisher = publisher
        self._launcher = launcher
        self._arrays = arrays
        self._writer = writer
        self._closer = closer
        self._queued = queued
        self._token_key = token_key
        self._quiet = quiet_seconds
        self._now = now
        # kombu's connection belongs to one thread.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self.in_order = asyncio.Lock()
        """From the ledger to the queue one at a time: whose message is missed is found by the order of both."""
        self._asking: dict[str, bool] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._errors = ConsecutiveErrors("dispatch")

    def pools_changed(self, namespace: str) -> None:
        """The queues that are served in the namespace changed: look again at what waits there."""
        for known in self._tasks:
            task = known.task
            if task.namespace != namespace or known.closing:
                continue
            if task.status.phase is Phase.QUEUED and task.spec.array is not None:
                self._show_queued(task)
            elif task.status.phase is Phase.QUEUED or task.status.reason == Reason.NO_WORKER_POOL:
                # There may be many, so each is looked at when it is its turn.
                self._work_queue.wake(task.uid)

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
                # A lone Task is dispatched at once; of many, those that come meanwhile go together.
                await asyncio.sleep(0 if self._work_queue else GATHER_SECONDS)

    def close(self) -> None:
        """Let the running publication end."""
        self._thread.shutdown(wait=True)

    def requeue(self, task: Task) -> None:
        """Its priority changed: send it to the other list; the message in the former one will be refused."""
        self._in_background(task.uid, self._requeue(task))

    async def _requeue(self, task: Task) -> None:
        try:
            if task.spec.array is not None:
                await self._arrays.republish(task.uid)
            else:
                await self._enter([task], again=True)
        except TaskflowError as error:
            # Then it is served by its former priority.
            log.warning("priority_not_changed", uid=task.uid, error=str(error))

    def _in_background(self, uid: str, work: Coroutine[None, None, None]) -> None:
        job = asyncio.create_task(self._safely(uid, work))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _safely(self, uid: str, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - one Task at fault; it is looked at again at the next resync
            self._errors.record(error, uid=uid)
        else:
            self._errors.clear()

    async def _close(self, task: Task, status: TaskStatus) -> None:
        try:
            await self._closer.close(task, status)
        except Exception:
            if (known := self._tasks.get(task.uid)) is not None:
                known.closing = False
            raise

    async def publish_again(self, tasks: Sequence[Task]) -> None:
        """Send the current attempts again: their messages or Jobs were lost, or their priority changed.

        Raises:
            Unavailable: Redis does not answer.
        """
        await self._enter(tasks, again=True)

    async def _dispatch(self, uids: Sequence[str]) -> None:
        admitted: list[Task] = []
        for uid in uids:
            if (task := self._free(uid)) is None:
                continue
            try:
                if task.spec.depends_on:
                    self._look_beside(uid)
                else:
                    await self._look(task, (), (), admitted)
            except TaskflowError:
                raise
            except Exception as error:  # noqa: BLE001 - one Task at fault; it is looked at again at the next resync
                self._errors.record(error, uid=uid)
            else:
                self._errors.clear()
        if admitted:
            await self._enter(admitted, again=False)

    def _free(self, uid: str) -> Task | None:
        """The Task, if anything may be done with it now."""
        known = self._tasks.get(uid)
        if known is None or known.closing:
            # What is being closed is looked at again when that is done.
            return None
        if known.held:
            self._work_queue.wake_at(uid, self._now() + LOOK_AGAIN)
            return None
        return known.task

    def _look_beside(self, uid: str) -> None:
        """Asking for what a Task waits for takes its time, so it is done beside the loop and holds up no other."""
        if uid in self._asking:
            # Something changed since it was asked.
            self._asking[uid] = True
            return
        self._asking[uid] = True
        self._in_background(uid, self._ask(uid))

    async def _ask(self, uid: str) -> None:
        try:
            while self._asking[uid]:
                async with self._lookups:
                    self._asking[uid] = False
                    await self._decide(uid)
        except TaskflowError as error:
            # That is this Task's problem, and no other's.
            dependency_health.failed(error)
            self._work_queue.wake_at(uid, self._now() + LOOK_AGAIN)
        finally:
            del self._asking[uid]

    async def _decide(self, uid: str) -> None:
        known = self._tasks.get(uid)
        if known is None:
            return
        states, cycle = await self._dependencies.states(known.task)
        if (task := self._free(uid)) is None:
            return
        admitted: list[Task] = []
        await self._look(task, states, cycle, admitted)
        if admitted:
            await self._enter(admitted, again=False)

    async def _look(
        self, task: Task, states: Sequence[DependencyState], cycle: Sequence[str], admitted: list[Task]
    ) -> None:
        decision = decide(task, self._pools, states, cycle, self._now())
        if task.spec.array is not None:
            if isinstance(decision, Keep | Hold) and decision.until is not None:
                self._work_queue.wake_at(task.uid, decision.until)
            self._arrays.decided(task, decision)
        elif isinstance(decision, Enqueue):
            admitted.append(task)
        elif isinstance(decision, Hold):
            await self._hold(task, decision)
        elif isinstance(decision, End):
            await self._end(task, decision)
        else:
            self._keep(task, decision.until, admitted)

    def _keep(self, task: Task, until: datetime | None, admitted: list[Task]) -> None:
        if until is not None:
            self._work_queue.wake_at(task.uid, until)
        if task.status.phase is Phase.QUEUED:
            # Entering it again is harmless, and finds out if it is in no ledger, claim or lease.
            admitted.append(task)
        else:
            self._show(task, transitions.observed(task))

    async def _hold(self, task: Task, decision: Hold) -> None:
        if decision.until is not None:
            self._work_queue.wake_at(task.uid, decision.until)
        if (task.status.phase, task.status.message) == (decision.phase, decision.message[:MAX_MESSAGE_CHARS]):
            self._show(task, transitions.observed(task))
            return
        # Whatever its phase: what is queued is shown a moment later, and an operator may die before that.
        if not await self._ledger.withdraw(task.uid, task.status.attempt):
            # A worker was faster. What it started goes on; the next attempt, if there is one, is held.
            return
        status = transitions.waiting(task, decision.phase, decision.reason, decision.message, self._now())
        after = self._show(task, status)
        await self._ledger.note(current_attempt(after))

    async def _end(self, task: Task, decision: End) -> None:
        attempt = task.status.attempt
        if not await self._ledger.withdraw(task.uid, attempt):
            if decision.reason is Reason.QUEUE_TIMEOUT:
                return
            await self._ledger.request_stop(task.uid, attempt, decision.reason)
            self._work_queue.wake_at(task.uid, self._now() + LOOK_AGAIN)
            return
        status = transitions.stopped(task, decision.phase, decision.reason, decision.message, self._now())
        self._in_background(task.uid, self._close(task, status))

    async def _enter(self, tasks: Sequence[Task], *, again: bool) -> None:
        try:
            await self._enter_together(tasks, again=again)
        except TaskflowError:
            raise
        except Exception as error:  # noqa: BLE001 - one of them is at fault: find it, and enter the others
            if len(tasks) == 1:
                self._errors.record(error, uid=tasks[0].uid)
                return
            for task in tasks:
                # Again: it may be in the ledger by now without having been sent.
                await self._enter([task], again=True)
        else:
            self._errors.clear()

    async def _enter_together(self, tasks: Sequence[Task], *, again: bool) -> None:
        attempts = [current_attempt(self._as_queued(task)) for task in tasks]
        async with self.in_order:
            await self._enter_in_order(tasks, attempts, again=again)

    async def _enter_in_order(self, tasks: Sequence[Task], attempts: Sequence[Attempt], *, again: bool) -> None:
        entered = await self._ledger.enqueue(attempts, again=again)
        new = [(task, answer) for task, answer in zip(tasks, entered, strict=True) if answer.entry is Entry.NEW]
        fresh = [
            Outgoing(message_of(task, self._token_key), answer.time_ms) for task, answer in new if not task.isolated
        ]
        for task, answer in zip(tasks, entered, strict=True):
            self._entered(task, answer.entry)
        for task, _ in new:
            if task.isolated:
                self._in_background(task.uid, self._launcher.launch(task, message_of(task, self._token_key)))
        if fresh:
            await self.send(fresh)
            log.info("published", messages=len(fresh), again=again)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish what is in the ledger.

        Raises:
            Unavailable: some, all or none were sent.
        """
        self._queued()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._publisher.publish, messages)

    def _entered(self, task: Task, entry: Entry) -> None:
        known = self._tasks.get(task.uid)
        # While the ledger answered, its attempt may have started or ended: then that is the news.
        if known is None or known.closing or known.task.status != task.status or known.sequence > 0:
            return
        if entry is not Entry.TAKEN:
            after = self._show_queued(known.task)
            seconds, since = after.spec.queue_timeout_seconds, after.status.queued_time
            if seconds is not None and since is not None:
                self._work_queue.wake_at(after.uid, since + timedelta(seconds=seconds))
        elif known.task.status.phase not in (Phase.QUEUED, Phase.RUNNING):
            self._show(known.task, transitions.running(known.task, None, self._now()))

    def _as_queued(self, task: Task) -> Task:
        return task.model_copy(update={"status": self.queued_status(task)})

    def queued_status(self, task: Task) -> TaskStatus:
        """Its status while it waits in its queue."""
        missing = no_pool(task, self._pools)
        reason = Reason.NO_WORKER_POOL if missing else Reason.WAITING_FOR_WORKER
        if task.isolated:
            hindrance, waiting = self._launcher.trouble(task), WAITING_FOR_POD
        else:
            hindrance, waiting = self._pools.hindrance(task.namespace, task.spec.queue), WAITING_MESSAGE
        return transitions.queued(task, reason, missing or hindrance or waiting, self._now())

    def show_queued(self, uid: str) -> None:
        """What is said of a Task that waits in its queue is another thing now."""
        known = self._tasks.get(uid)
        if known is not None and not known.closing and known.task.status.phase is Phase.QUEUED:
            self._show_queued(known.task)

    def _show_queued(self, task: Task) -> Task:
        return self._show(task, self.queued_status(task))

    def _show(self, task: Task, status: TaskStatus) -> Task:
        if status == task.status:
            return task
        after = self._tasks.set_status(task.uid, status)
        self._writer.submit(after, self._quiet)
        return after
