"""Takes in Task resources, from the watch and from lists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from taskflow_core.domain.phases import OPEN_SELECTOR, Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import NotFound, TaskflowError
from taskflow_core.kube.client import KubeClient, tasks_path
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.log_fields import log_fields
from taskflow_operator.runtime.status_writer import StatusWriter
from taskflow_operator.tasks.closer import Closer
from taskflow_operator.tasks.open_tasks import OpenTask, OpenTasks

log = get_logger(__name__)


class Observer:
    """Keeps `OpenTasks` equal to the resources. Calls are cheap, may be repeated, and may come in any order.

    Args:
        tasks: the open Tasks.
        writer: is told the status that a resource has.
        closer: withdraws Tasks whose resource is gone.
        kube: the API server.
        dispatch: has a Task looked at.
        requeue: sends a queued Task again whose priority changed.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        writer: StatusWriter,
        closer: Closer,
        kube: KubeClient,
        *,
        dispatch: Callable[[str], None],
        requeue: Callable[[Task], None],
    ) -> None:
        self._tasks = tasks
        self._writer = writer
        self._closer = closer
        self._kube = kube
        self._dispatch = dispatch
        self._requeue = requeue
        self._checks: set[asyncio.Task[None]] = set()

    def observe(self, body: dict[str, Any], *, gone: bool = False) -> None:
        """Take in a Task as the API server shows it.

        Args:
            body: the Kubernetes object; its status is ours.
            gone: it left the selection of open Tasks, because it finished or was deleted.
        """
        uid = body["metadata"]["uid"]
        known = self._tasks.get(uid)
        if gone:
            if known is not None and not known.closing:
                self._check_later(known.task)
            return
        meta = body["metadata"]
        deletes = meta.get("deletionTimestamp") is not None and known is not None and not known.task.deleting
        if known is not None and known.task.generation >= meta.get("generation", 1) and not deletes:
            return
        try:
            task = Task.from_object(body)
        except ValidationError as error:
            log.error("task_unreadable", name=body["metadata"]["name"], error=str(error))  # noqa: TRY400
            return
        if task.unreadable and not task.finished:
            log.warning("task_unreadable", **log_fields(task), error=task.unreadable)
        if known is not None:
            self._spec_changed(known, task)
        elif not task.finished and self._tasks.add(task):
            for waiting in self._tasks.dependents(task.namespace, task.name):
                self._dispatch(waiting)
            self._writer.seen(uid, body.get("status") or {})
            if task.status.phase is None:
                # Nobody has seen it before, but for an operator that ended within a moment.
                metrics.CREATED.labels(
                    namespace=task.namespace,
                    queue=metrics.queue_label(task.spec.queue),
                    handler=metrics.handler_label(task.spec.handler),
                ).inc()
            metrics.OPEN.set(len(self._tasks))
            self._dispatch(uid)

    def _spec_changed(self, known: OpenTask, task: Task) -> None:
        """Priority, suspend, cancel, deadlines and time to live may change, and the Task may be deleted. The status is
        only written by this operator.
        """
        former = known.task
        self._tasks.replace(
            former.model_copy(
                update={
                    "spec": task.spec,
                    "unreadable": task.unreadable,
                    "generation": task.generation,
                    "deleting": task.deleting,
                }
            )
        )
        leaves = task.spec.suspend or task.cancelled
        if former.spec.priority != task.spec.priority and former.status.phase is Phase.QUEUED and not leaves:
            self._requeue(known.task)
        self._dispatch(task.uid)

    async def list(self) -> str:
        """Compare what is known with a list of all open Tasks: take in what the watch missed, and find what is gone.

        Returns the resourceVersion of the list.

        Raises:
            Unavailable, Conflict: the list could not be read to its end; no Task was taken for gone.
        """
        before = {known.task.uid: known.task for known in self._tasks}
        seen: set[str] = set()
        version = ""
        async for page in self._kube.list_pages(tasks_path(), OPEN_SELECTOR):
            version = page.version
            for body in page.items:
                seen.add(body["metadata"]["uid"])
                self.observe(body)
        for uid, task in before.items():
            known = self._tasks.get(uid)
            if uid not in seen and known is not None and not known.closing:
                await self._check(task)
        self._tasks.prune(time.monotonic())
        metrics.OPEN.set(len(self._tasks))
        return version

    def _check_later(self, task: Task) -> None:
        job = asyncio.create_task(self._check(task))
        self._checks.add(job)
        job.add_done_callback(self._checks.discard)

    async def _check(self, task: Task) -> None:
        """Find out why a Task is no longer among the open ones. It is withdrawn only if its resource is gone."""
        try:
            body = await self._kube.request("GET", tasks_path(task.namespace, task.name))
        except NotFound:
            await self._closer.withdraw(task)
            return
        except TaskflowError as error:
            # The next list finds it again.
            dependency_health.failed(error)
            return
        if body["metadata"]["uid"] != task.uid:
            await self._closer.withdraw(task)
