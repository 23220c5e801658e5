from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Protocol

from taskflow_core.broker.publish import Outgoing
from taskflow_core.domain.message import Message
from taskflow_core.domain.naming import attempt_token
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, Task, TaskStatus
from taskflow_core.errors import TaskflowError
from taskflow_core.ledger.operator import Attempt, Entry, OperatorLedger
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator import outage, transitions
from taskflow_operator.closing import Closer
from taskflow_operator.decide import DependencyState, End, Enqueue, Hold, Pools, decide, no_pool
from taskflow_operator.going_on import Stumbles
from taskflow_operator.memory import OpenTasks
from taskflow_operator.snapshots import current_attempt
from taskflow_operator.status_writer import StatusWriter

log = get_logger(__name__)
BATCH = 500
LOOKUPS = 16
"""Tasks at a time whose dependencies are asked for."""
RETRY_SECONDS = 1.0
LOOK_AGAIN = timedelta(seconds=5)
"""A stop is asked for again until it happened, since a Redis that lost its data lost the request too."""
WAITING_MESSAGE = "waits for a free worker"


class Publishing(Protocol):
    """Where messages go. Raises `Unavailable`."""

    def publish(self, outgoing: Sequence[Outgoing]) -> None:
        """Send a batch; harmless to repeat."""


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
        pools: Pools,
        ledger: OperatorLedger,
        publisher: Publishing,
        writer: StatusWriter,
        *,
        token_key: str,
        quiet_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tasks = tasks
        self._pools = pools
        self._ledger = ledger
        self._publisher = publisher
        self._writer = writer
        self._token_key = token_key
        self._quiet = quiet_seconds
        self._now = now
        self.closer: Closer | None = None
        self.dependencies: Dependencies | None = None
        self._due: dict[str, None] = {}
        self._timers: list[tuple[datetime, str]] = []
        self._wakeup = asyncio.Event()
        # kombu's connection belongs to one thread.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._asking: dict[str, bool] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._stumbles = Stumbles("dispatch")

    def wake(self, uid: str) -> None:
        """Look at this Task now."""
        self._due[uid] = None
        self._wakeup.set()

    def wake_at(self, uid: str, when: datetime | None) -> None:
        """Look at this Task at that time; None is now."""
        if when is None:
            self.wake(uid)
            return
        heapq.heappush(self._timers, (when, uid))
        self._wakeup.set()

    def pools_changed(self, namespace: str) -> None:
        """The queues that are served in the namespace changed: look again at what waits there."""
        for known in self._tasks:
            task = known.task
            if task.namespace != namespace or known.closing:
                continue
            if task.status.reason == Reason.NO_WORKER_POOL and task.status.phase is Phase.PENDING:
                self.wake(task.uid)
            elif task.status.phase is Phase.QUEUED:
                self._show_queued(task)

    async def run(self) -> None:
        """Dispatch what is due, until cancelled."""
        while True:
            await self._wait_for_work()
            self._stumbles.check()
            batch = [uid for uid, _ in zip(list(self._due), range(BATCH), strict=False)]
            for uid in batch:
                del self._due[uid]
            try:
                await self._dispatch(batch)
            except TaskflowError as error:
                outage.away(error)
                self._due = dict.fromkeys(batch) | self._due
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:  # noqa: BLE001 - one of them is at fault: find it, dispatch the others
                if len(batch) == 1:
                    # It is looked at again when something changes, or by the next resync.
                    self._stumbles.over(error, uid=batch[0])
                else:
                    await self._dispatch_each(batch)
            else:
                self._stumbles.passed()

    async def _dispatch_each(self, batch: Sequence[str]) -> None:
        for uid in batch:
            try:
                await self._dispatch([uid])
            except TaskflowError as error:
                outage.away(error)
                self.wake(uid)
            except Exception as error:  # noqa: BLE001
                self._stumbles.over(error, uid=uid)
            else:
                self._stumbles.passed()

    def close(self) -> None:
        """Let the running publication end."""
        self._thread.shutdown(wait=True)

    def requeue(self, task: Task) -> None:
        """Its priority changed: send it to the other list; the message in the former one will be refused."""
        job = asyncio.create_task(self._requeue(task))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _requeue(self, task: Task) -> None:
        try:
            await self._enter([task], again=True)
        except TaskflowError as error:
            # Then it is served by its former priority.
            log.warning("priority_not_changed", uid=task.uid, error=str(error))

    async def publish_again(self, tasks: Sequence[Task]) -> None:
        """Send the current attempts again: their messages were lost, or their priority changed.

        Raises:
            Unavailable: Redis does not answer.
        """
        await self._enter(tasks, again=True)

    async def _wait_for_work(self) -> None:
        while True:
            now = self._now()
            while self._timers and self._timers[0][0] <= now:
                self._due[heapq.heappop(self._timers)[1]] = None
            if self._due:
                return
            self._wakeup.clear()
            timeout = (self._timers[0][0] - now).total_seconds() if self._timers else None
            try:
                await asyncio.wait_for(self._wakeup.wait(), timeout)
            except TimeoutError:
                continue

    async def _dispatch(self, uids: Sequence[str]) -> None:
        admitted: list[Task] = []
        for uid in uids:
            known = self._tasks.get(uid)
            if known is None or known.closing:
                # What is being closed is looked at again when that is done.
                continue
            if known.held:
                self.wake_at(uid, self._now() + LOOK_AGAIN)
                continue
            try:
                if known.task.spec.depends_on and self.dependencies is not None:
                    self._look_beside(uid, self.dependencies)
                else:
                    await self._look(known.task, (), (), admitted)
            except TaskflowError:
                raise
            except Exception:
                # One Task that nobody foresaw must not stop the others; the next resync looks at it again.
                log.exception("task_skipped", uid=uid)
        if admitted:
            await self._enter(admitted, again=False)

    def _look_beside(self, uid: str, dependencies: Dependencies) -> None:
        """Asking for what a Task waits for takes its time, so it is done beside the loop and holds up no other."""
        if uid in self._asking:
            # Something changed since it was asked.
            self._asking[uid] = True
            return
        job = asyncio.create_task(self._ask(uid, dependencies))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _ask(self, uid: str, dependencies: Dependencies) -> None:
        self._asking[uid] = True
        try:
            while self._asking[uid]:
                async with self._lookups:
                    self._asking[uid] = False
                    await self._decide(uid, dependencies)
        except TaskflowError as error:
            # The history may be away for long; that is this Task's problem, and no other's.
            outage.away(error)
            self.wake_at(uid, self._now() + LOOK_AGAIN)
        except Exception:
            log.exception("task_skipped", uid=uid)
        finally:
            del self._asking[uid]

    async def _decide(self, uid: str, dependencies: Dependencies) -> None:
        known = self._tasks.get(uid)
        if known is None:
            return
        states, cycle = await dependencies.states(known.task)
        known = self._tasks.get(uid)
        if known is None or known.closing:
            return
        if known.held:
            self.wake_at(uid, self._now() + LOOK_AGAIN)
            return
        admitted: list[Task] = []
        await self._look(known.task, states, cycle, admitted)
        if admitted:
            await self._enter(admitted, again=False)

    async def _look(
        self, task: Task, states: Sequence[DependencyState], cycle: Sequence[str], admitted: list[Task]
    ) -> None:
        decision = decide(task, self._pools, states, cycle, self._now())
        if isinstance(decision, Enqueue):
            admitted.append(task)
        elif isinstance(decision, Hold):
            await self._hold(task, decision)
        elif isinstance(decision, End):
            await self._end(task, decision)
        else:
            self._keep(task, decision.until, admitted)

    def _keep(self, task: Task, until: datetime | None, admitted: list[Task]) -> None:
        if until is not None:
            self.wake_at(task.uid, until)
        if task.status.phase is Phase.QUEUED:
            # Entering it again is harmless, and finds out if it is in no ledger, claim or lease.
            admitted.append(task)

    async def _hold(self, task: Task, decision: Hold) -> None:
        if decision.until is not None:
            self.wake_at(task.uid, decision.until)
        if (task.status.phase, task.status.message) == (decision.phase, decision.message[:MAX_MESSAGE_CHARS]):
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
            self.wake_at(task.uid, self._now() + LOOK_AGAIN)
            return
        assert self.closer is not None, "wired before it runs"  # noqa: S101 - a mistake of ours, not of a user
        status = transitions.stopped(task, decision.phase, decision.reason, decision.message, self._now())
        job = asyncio.create_task(self.closer.close(task, status))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _enter(self, tasks: Sequence[Task], *, again: bool) -> None:
        prepared = [ready for task in tasks if (ready := self._prepare(task)) is not None]
        entered = await self._ledger.enqueue([attempt for _, attempt, _ in prepared], again=again)
        fresh = [
            Outgoing(message, answer.time_ms)
            for (_, _, message), answer in zip(prepared, entered, strict=True)
            if answer.entry is Entry.NEW
        ]
        for (task, _, _), answer in zip(prepared, entered, strict=True):
            known = self._tasks.get(task.uid)
            # While the ledger answered, its attempt may have started or ended: then that is the news.
            if known is None or known.closing or known.task.status != task.status or known.sequence > 0:
                continue
            if answer.entry is not Entry.TAKEN:
                after = self._show_queued(known.task)
                seconds, since = after.spec.queue_timeout_seconds, after.status.queued_time
                if seconds is not None and since is not None:
                    self.wake_at(after.uid, since + timedelta(seconds=seconds))
            elif known.task.status.phase not in (Phase.QUEUED, Phase.RUNNING):
                self._show(known.task, transitions.running(known.task, None, self._now()))
        if fresh:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._publisher.publish, fresh)
            log.info("published", messages=len(fresh), again=again)

    def _prepare(self, task: Task) -> tuple[Task, Attempt, Message] | None:
        """What goes into the ledger and to the broker; None for a Task that cannot be written down, which stops no other."""
        try:
            attempt, message = current_attempt(self._as_queued(task)), self._message(task)
            attempt.snapshot.model_dump_json()
            message.model_dump_json()
        except Exception:
            log.exception("task_skipped", uid=task.uid)
            return None
        return task, attempt, message

    def _as_queued(self, task: Task) -> Task:
        return task.model_copy(update={"status": self._queued_status(task)})

    def _queued_status(self, task: Task) -> TaskStatus:
        missing = no_pool(task, self._pools)
        reason = Reason.NO_WORKER_POOL if missing else Reason.WAITING_FOR_WORKER
        return transitions.queued(task, reason, missing or WAITING_MESSAGE, self._now())

    def _show_queued(self, task: Task) -> Task:
        return self._show(task, self._queued_status(task))

    def _show(self, task: Task, status: TaskStatus) -> Task:
        if status == task.status:
            return task
        after = self._tasks.set_status(task.uid, status)
        self._writer.submit(after, self._quiet)
        return after

    def _message(self, task: Task) -> Message:
        spec, status = task.spec, task.status
        deadline = None
        if spec.active_deadline_seconds is not None and status.start_time is not None:
            deadline = status.start_time + timedelta(seconds=spec.active_deadline_seconds)
        return Message(
            uid=task.uid,
            namespace=task.namespace,
            name=task.name,
            attempt=status.attempt,
            token=attempt_token(self._token_key, task.uid, status.attempt),
            handler=spec.handler,
            args=spec.args,
            kwargs=spec.kwargs,
            inputs=spec.inputs,
            outputs=spec.outputs,
            queue=spec.queue,
            priority=spec.priority,
            attempt_timeout_seconds=spec.attempt_timeout_seconds,
            active_deadline_seconds=spec.active_deadline_seconds,
            deadline=deadline,
            checkpoint=status.checkpoint,
            traceparent=task.traceparent,
        )
