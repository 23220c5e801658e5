"""Brings the attempts of Tasks to workers: ledger first, then a message or a pod.

If the operator dies between the two, the ledger has an entry that nobody starts. The reconciler finds it and starts it
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from taskflow_core.batching import isolate_failures
from taskflow_core.domain.attempts import Attempt, AttemptKey, Entered, Entry
from taskflow_core.domain.phases import Phase, Reason
from taskflow_core.domain.task import MAX_MESSAGE_CHARS, Isolation, Task, TaskStatus
from taskflow_core.errors import TaskflowError
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime.background import Background
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.attempt_times import AttemptTimes
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.message_queue import MessageQueue
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import AttemptStarter, EnteredAttempt, Ledger
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.rules.decision import Decision, End, Enqueue, Hold, Pools, no_pool
from taskflow_operator.tasks.snapshots import current_attempt
from taskflow_operator.tasks.status import TaskStatuses
from taskflow_operator.tasks.work_queue import WorkQueue

log = get_logger(__name__)
LOOK_AGAIN = timedelta(seconds=5)
"""A stop is requested again until it happened, because a Redis that lost its data lost the request too."""


class Delivery:
    """The execution of Tasks that are not arrays.

    Args:
        tasks: the open Tasks.
        work_queue: when to look at them again.
        pools: which queues are served.
        ledger: where attempts are entered.
        queue: whose lock keeps ledger and broker in the same order.
        starters: how an attempt reaches a worker, by `spec.isolation`.
        statuses: where a new status is shown.
        closer: ends Tasks that no worker has.
        times: measures waiting and running.
        now: the time.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        work_queue: WorkQueue,
        pools: Pools,
        ledger: Ledger,
        queue: MessageQueue,
        starters: Mapping[Isolation, AttemptStarter],
        statuses: TaskStatuses,
        closer: Closer,
        times: AttemptTimes,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tasks = tasks
        self._work_queue = work_queue
        self._pools = pools
        self._ledger = ledger
        self._queue = queue
        self._starters = starters
        self._statuses = statuses
        self._closer = closer
        self._times = times
        self._now = now
        self._errors = ConsecutiveErrors("delivery")
        self._background = Background(self._errors)

    async def apply(self, decisions: Sequence[tuple[Task, Decision]]) -> None:
        """Act on decisions about Tasks.

        Raises:
            TaskflowError: all of them have to be decided again.
        """
        self._errors.check()
        admitted: list[Task] = []
        for task, decision in decisions:
            try:
                if await self._admits(task, decision):
                    admitted.append(task)
            except TaskflowError:
                raise
            except Exception as error:  # noqa: BLE001 - one Task at fault; it is looked at again at the next resync
                self._errors.record(error, uid=task.uid)
            else:
                self._errors.clear()
        await self._enter(admitted, again=False)

    async def _admits(self, task: Task, decision: Decision) -> bool:
        """Act on a decision; True if the Task is to be entered in the ledger."""
        if isinstance(decision, Enqueue):
            return True
        if isinstance(decision, Hold):
            await self._hold(task, decision)
            return False
        if isinstance(decision, End):
            await self._end(task, decision)
            return False
        if decision.until is not None:
            self._work_queue.add_at(task.uid, decision.until)
        if task.status.phase is Phase.QUEUED:
            # Entering it again is harmless, and finds out whether it is missing from ledger, claims and leases.
            return True
        self._statuses.show(task, transitions.observed(task))
        return False

    async def republish(self, task: Task) -> None:
        """Send a queued Task again because its priority changed. The message in the former list will be refused.

        Raises:
            Unavailable: Redis does not answer.
        """
        await self._enter([task], again=True)

    async def republish_all(self, tasks: Sequence[Task]) -> None:
        """Start the current attempts again: their messages or Jobs were lost.

        Raises:
            Unavailable: Redis does not answer.
        """
        await self._enter(tasks, again=True)

    async def _hold(self, task: Task, decision: Hold) -> None:
        if decision.until is not None:
            self._work_queue.add_at(task.uid, decision.until)
        if (task.status.phase, task.status.message) == (decision.phase, decision.message[:MAX_MESSAGE_CHARS]):
            self._statuses.show(task, transitions.observed(task))
            return
        # Whatever its phase: a queued Task is shown as such a moment later, and an operator may die before that.
        if not await self._ledger.withdraw(AttemptKey.current(task)):
            # A worker was faster. The attempt goes on; the next one, if there is one, is held.
            return
        await self._show_held(task, decision.phase, decision.reason, decision.message)

    async def _show_held(self, task: Task, phase: Phase, reason: str, message: str) -> None:
        status = transitions.waiting(task, phase, reason, message, self._now())
        await self._ledger.note(current_attempt(self._statuses.show(task, status)))

    async def _end(self, task: Task, decision: End) -> None:
        attempt = AttemptKey.current(task)
        if not await self._ledger.withdraw(attempt):
            if decision.reason in (Reason.QUEUE_TIMEOUT, Reason.ALREADY_RAN):
                return
            await self._ledger.request_stop(attempt, decision.reason)
            self._work_queue.add_at(task.uid, self._now() + LOOK_AGAIN)
            return
        if decision.ran is None:
            status = transitions.stopped(task, decision.phase, decision.reason, decision.message, self._now())
        else:
            status = transitions.not_run(task, decision.ran, decision.message, self._now())
        self._background.start(self._closer.close(task, status), uid=task.uid)

    async def _enter(self, tasks: Sequence[Task], *, again: bool) -> None:
        if not tasks:
            return
        first = True

        async def run(some: Sequence[Task]) -> None:
            # After a failure it may be in the ledger without having been started.
            nonlocal first
            resend, first = again or not first, False
            await self._enter_together(some, again=resend)
            self._errors.clear()

        await isolate_failures(
            tasks, run, lambda task, error: self._errors.record(error, uid=task.uid), shared=TaskflowError
        )

    async def _enter_together(self, tasks: Sequence[Task], *, again: bool) -> None:
        attempts = [self._as_queued(task) for task in tasks]
        async with self._queue.in_order:
            answers = list(zip(tasks, await self._ledger.enqueue(attempts, again=again), strict=True))
            for task, answer in answers:
                if answer.entry is Entry.NEW:
                    self._times.queued(task, answer.time_ms)
                await self._entered(task, answer)
            for isolation, starter in self._starters.items():
                entered = [
                    EnteredAttempt(task, answer.time_ms)
                    for task, answer in answers
                    if answer.entry is Entry.NEW and task.spec.isolation is isolation
                ]
                if entered:
                    await starter.start(entered)
                    log.info("started", attempts=len(entered), isolation=isolation.value, again=again)

    async def _entered(self, task: Task, answer: Entered) -> None:
        known = self._tasks.get(task.uid)
        # While the ledger answered, the attempt may have started or ended: then its status is newer than this answer.
        if known is None or known.closing or known.task.status != task.status or known.sequence > 0:
            return
        if answer.limit is not None:
            self._work_queue.add_at(task.uid, self._now() + timedelta(milliseconds=answer.limit.retry_ms))
            if task.status.message != answer.limit.message:
                await self._show_held(known.task, Phase.PENDING, answer.limit.reason, answer.limit.message)
        elif answer.entry is not Entry.TAKEN:
            after = self._statuses.show(known.task, self._queued_status(known.task))
            seconds, since = after.spec.queue_timeout_seconds, after.status.queued_time
            if seconds is not None and since is not None:
                self._work_queue.add_at(after.uid, since + timedelta(seconds=seconds))
        elif known.task.status.phase not in (Phase.QUEUED, Phase.RUNNING):
            self._statuses.show(known.task, transitions.running(known.task, None, self._now()))

    def _as_queued(self, task: Task) -> Attempt:
        return current_attempt(task.model_copy(update={"status": self._queued_status(task)}))

    def _queued_status(self, task: Task) -> TaskStatus:
        message = self._starters[task.spec.isolation].waiting_message(task)
        return queued_status(task, self._pools, message, self._now())


def queued_status(task: Task, pools: Pools, message: str, now: datetime) -> TaskStatus:
    """Status of a Task that waits in its queue.

    Args:
        task: as it is.
        pools: which queues are served.
        message: what it waits for, if its queue is served.
        now: the time.
    """
    missing = no_pool(task, pools)
    reason = Reason.NO_WORKER_POOL if missing else Reason.WAITING_FOR_WORKER
    return transitions.queued(task, reason, missing or message, now)
