from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from taskflow_core.domain.events import EventKind
from taskflow_core.domain.task import Task, TaskStatus
from taskflow_core.ledger.operator import Attempt, OperatorLedger
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.runtime.status_writer import StatusWriter, Written
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.settlement import Settlement
from taskflow_operator.tasks.snapshots import snapshot

log = get_logger(__name__)


class Closer:
    """Brings the end of an attempt into the resource, then into the ledger and history, then to the next attempt.

    The order is what makes it safe to die at any point: until the status stands, the ended attempt's claim stays and its
    event is unacknowledged, so the end is applied again; once it stands, the next attempt may be entered.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        writer: StatusWriter,
        ledger: OperatorLedger,
        dispatch_at: Callable[[str, datetime | None], None],
        closed: Callable[[Task], None],
    ) -> None:
        self._tasks = tasks
        self._writer = writer
        self._settlement = Settlement(ledger)
        self._dispatch_at = dispatch_at
        self._closed = closed

    async def close(self, task: Task, status: TaskStatus) -> None:
        """Close the task's current attempt with the status that follows from its end; returns when all of it is durable."""
        ended = task.status.attempt
        known = self._tasks.get(task.uid)
        if known is None:
            return
        known.closing = True
        after = self._tasks.set_status(task.uid, status)
        written = await self._writer.submit(after)
        if written is Written.REFUSED and after.finished:
            # The end must stand, whatever it was that the API server would not take: then without what came from outside.
            after = self._tasks.set_status(task.uid, transitions.bare(after.status))
            written = await self._writer.submit(after)
        if written is Written.GONE:
            await self.withdraw(after)
            return
        await self._settlement.settle(Attempt(task.uid, ended, snapshot(after)), EventKind.SETTLED)
        if after.finished:
            # A status that the API server refuses stays open there, and the next resync shows it again; see the log.
            self._forget(after)
            log.info("task_finished", **log_fields(after), phase=status.phase, reason=status.reason)
            return
        known.closing = False
        # Now, and not when the next attempt is due: the user may have cancelled or changed it meanwhile.
        self._dispatch_at(task.uid, None)

    async def withdraw(self, task: Task) -> None:
        """The resource is gone before it finished: nobody may claim it any more, and a late finish is refused."""
        known = self._tasks.get(task.uid)
        task = known.task if known is not None else task
        await self._settlement.settle(Attempt(task.uid, task.status.attempt, snapshot(task)), EventKind.DELETED)
        self._forget(task)
        log.info("task_withdrawn", **log_fields(task))

    def _forget(self, task: Task) -> None:
        self._tasks.close(task.uid, time.monotonic())
        self._writer.forget(task.uid)
        for waiting in self._tasks.waiting_for(task.namespace, task.name):
            self._dispatch_at(waiting, None)
        self._closed(task)
