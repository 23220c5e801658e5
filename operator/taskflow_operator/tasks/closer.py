"""Writes the end of an attempt: first to the resource, then to ledger and history, then the next attempt may start.

The order makes it safe to die at any point. Until the resource has the status, the claim of the ended attempt stays and
its event is unacknowledged, so the end is applied again. Once the resource has it, the next attempt may be entered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from taskflow_core.domain.attempts import Attempt
from taskflow_core.domain.events import EventKind
from taskflow_core.domain.task import Task, TaskStatus
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.runtime.status_writer import StatusWriter, Written
from taskflow_operator.tasks.finished import Finished
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.rules import transitions
from taskflow_operator.tasks.settlement import Settlement
from taskflow_operator.tasks.snapshots import snapshot

log = get_logger(__name__)


class StatusRefusedError(Exception):
    """The API server does not accept the status that an attempt ended with. The attempt is not closed, and is tried
    again.
    """


class Closer:
    """Closes attempts.

    Args:
        tasks: the open Tasks.
        writer: writes to the API server.
        settlement: closes attempts in the ledger.
        dispatch_at: has a Task looked at.
        finished: is told of Tasks that need no more work.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        writer: StatusWriter,
        settlement: Settlement,
        dispatch_at: Callable[[str, datetime | None], None],
        finished: Finished,
    ) -> None:
        self._tasks = tasks
        self._writer = writer
        self._settlement = settlement
        self._dispatch_at = dispatch_at
        self._finished = finished

    async def close(self, task: Task, status: TaskStatus) -> None:
        """Close the Task's current attempt with the status that follows from its end; returns when all of it is
        durable.

        Raises:
            StatusRefusedError: the API server does not accept the status of the next attempt, so the ended one stays
                open.
        """
        if self._tasks.get(task.uid) is None:
            return
        with self._tasks.closing(task.uid):
            after = await self._write(task, status)
            if after is None:
                return
            await self._settlement.settle(Attempt(task.uid, task.status.attempt, snapshot(after)), EventKind.SETTLED)
            if after.finished:
                # A status that the API server refuses stays open there, and the next resync shows it again; see the
                # log.
                self._forget(after)
                log.info("task_finished", **log_fields(after), phase=status.phase, reason=status.reason)
                return
        # Now, and not when the next attempt is due: the user may have cancelled or changed it meanwhile.
        self._dispatch_at(task.uid, None)

    async def _write(self, task: Task, status: TaskStatus) -> Task | None:
        """The Task with the status that its resource has now; None if the resource is gone."""
        after = self._tasks.set_status(task.uid, status)
        written = await self._writer.submit(after)
        if written is Written.REFUSED:
            # Whatever the API server does not accept, the end has to be written: without what came from outside.
            after = self._tasks.set_status(task.uid, transitions.bare(after.status))
            written = await self._writer.submit(after)
        if written is Written.GONE:
            await self.withdraw(after)
            return None
        if written is Written.REFUSED and not after.finished:
            # Attempt n+1 is published only after the resource has it, or a restart would run attempt n again beside it.
            self._tasks.set_status(task.uid, task.status)
            raise StatusRefusedError(f"the API server refused the status after attempt {task.status.attempt}")
        return after

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
        for dependent in self._tasks.dependents(task.namespace, task.name):
            self._dispatch_at(dependent, None)
        self._finished.publish(task)
