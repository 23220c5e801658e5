"""Changes the status of open Tasks, in memory at once and in the resource soon."""

from __future__ import annotations

from taskflow_core.domain.task import Task, TaskStatus
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.tasks.open_tasks import OpenTasks


class TaskStatuses:
    """The one way to change a status that is not an end.

    Args:
        tasks: the open Tasks.
        writer: writes to the API server.
        quiet_seconds: a status is written only if it lasts longer than this.
    """

    def __init__(self, tasks: OpenTasks, writer: StatusWriter, quiet_seconds: float) -> None:
        self._tasks = tasks
        self._writer = writer
        self._quiet_seconds = quiet_seconds

    def show(self, task: Task, status: TaskStatus) -> Task:
        """The Task with that status, which is written unless it is the one that the Task has."""
        return task if status == task.status else self.write(task.uid, status)

    def write(self, uid: str, status: TaskStatus, *, delay: float | None = None) -> Task:
        """The Task with that status, which is written after `delay` seconds; by default, after the quiet time."""
        after = self._tasks.set_status(uid, status)
        self._writer.submit(after, self._quiet_seconds if delay is None else delay)
        return after
