from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from taskflow_core.domain.message import Message
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, Forbidden, Invalid, NotFound, TaskflowError, Unavailable
from taskflow_core.kube.client import KubeClient, delete_options, resource_path
from taskflow_core.ledger.operator import OperatorLedger, State
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.isolated.jobs import AGAIN_SECONDS, SELECTOR, Job, job, trouble
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.open_tasks import OpenTasks

log = get_logger(__name__)
BATCH = "apis/batch/v1"
LOOK_SECONDS = 2.0
AT_A_TIME = 16
"""Jobs that are created side by side."""
SLACK_SECONDS = 10.0
"""How much longer than a lease nobody has to hold an attempt before its Job is deleted under it."""
Member = tuple[str, int]


class JobController:
    """Makes the Job of each attempt that runs in a pod of its own, and looks after those Jobs.

    An attempt is in the ledger first, then its message is left in Redis, then its Job is made. What was not done of that, when the
    operator died or the API server was away, the next look does: an attempt that waits in the ledger without a Job is one
    whose message was lost.

    Args:
        tasks: the open Tasks.
        kube: the API server.
        ledger: what has become of the attempts.
        template: pods for a namespace and queue; raises `Invalid`, saying why there are none now.
        lease_seconds: after which a silent worker has lost its attempt.
        again: enters attempts again whose Job is missing, and launches them.
        show: shows a Task anew whose trouble is another now.
        now: the time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        kube: KubeClient,
        ledger: OperatorLedger,
        template: Callable[[str, str], Mapping[str, Any]],
        *,
        lease_seconds: float,
        again: Callable[[Sequence[Task]], Awaitable[None]],
        show: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._kube = kube
        self._ledger = ledger
        self._template = template
        self._patience = lease_seconds + SLACK_SECONDS
        self._again = again
        self._show = show
        self._now = now
        self._clock = clock
        self._gate = asyncio.Semaphore(AT_A_TIME)
        self._launching: set[Member] = set()
        self._refused: dict[Member, float] = {}
        self._troubles: dict[Member, str] = {}
        self._over: dict[str, float] = {}
        """Jobs that still run though nobody holds their attempt, by uid, and since when."""
        self._any = True
        self._errors = ConsecutiveErrors("jobs")

    def trouble(self, task: Task) -> str | None:
        """Why the pod of the current attempt does not start; None if it has only begun to."""
        return self._troubles.get((task.uid, task.status.attempt))

    async def launch(self, task: Task, message: Message) -> None:
        """Make the Job of an attempt that is in the ledger. Harmless to repeat; what fails is done at a later look."""
        member = task.uid, task.status.attempt
        self._launching.add(member)
        try:
            async with self._gate:
                await self._launch(task, message)
        except (Invalid, Forbidden, NotFound) as error:
            self._refused[member] = self._clock()
            log.warning("job_refused", uid=task.uid, attempt=task.status.attempt, error=str(error))
            self._tell(member, str(error))
        except Unavailable as error:
            dependency_health.failed(error)
        finally:
            self._launching.discard(member)

    async def _launch(self, task: Task, message: Message) -> None:
        wanted = job(task, self._template(task.namespace, task.spec.queue))
        await self._ledger.leave(message)
        try:
            await self._kube.request("POST", resource_path(BATCH, "jobs", task.namespace), wanted)
        except Conflict:
            # It was made before: by this operator, or by one that ended right then.
            return
        log.info("job_made", uid=task.uid, attempt=task.status.attempt, job=wanted["metadata"]["name"])

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._errors.check()
            try:
                with metrics.RECONCILE.labels(kind="jobs").time():
                    await self.look()
            except TaskflowError as error:
                dependency_health.failed(error)
            except Exception as error:  # noqa: BLE001 - the next look may well succeed
                self._errors.record(error)
            else:
                self._errors.clear()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Hold the Jobs against the ledger, once.

        Raises:
            Unavailable, Conflict: the API server or Redis does not answer, or the list broke off.
        """
        # Before the list: what is queued after it has a Job that is not in it.
        waiting = self._waiting()
        if not waiting and not self._any and not self._tasks.isolated():
            return
        jobs = await self._jobs()
        self._any = bool(jobs)
        states = dict(zip(jobs, await self._ledger.states([each.member for each in jobs]), strict=True))
        here = {each.member for each in jobs}
        await self._make_missing({member: task for member, task in waiting.items() if member not in here})
        await self._judge(states)
        self._forget(waiting, jobs)

    def _waiting(self) -> dict[Member, Task]:
        return {
            (known.task.uid, known.task.status.attempt): known.task
            for known in self._tasks.isolated()
            if known.task.status.phase is Phase.QUEUED and not known.closing and not known.held
        }

    async def _jobs(self) -> list[Job]:
        jobs: list[Job] = []
        async for page in self._kube.list_pages(resource_path(BATCH, "jobs"), label_selector=SELECTOR):
            for body in page.items:
                try:
                    jobs.append(Job.from_object(body))
                except (ValueError, KeyError) as error:
                    log.warning("job_unreadable", name=body["metadata"]["name"], error=str(error))
        return jobs

    async def _make_missing(self, missing: Mapping[Member, Task]) -> None:
        tasks: list[Task] = []
        for member, task in missing.items():
            lately = self._clock() - self._refused.get(member, float("-inf")) < AGAIN_SECONDS
            if lately or member in self._launching:
                continue
            try:
                self._template(task.namespace, task.spec.queue)
            except Invalid as error:
                # Asked here as well, since it changes by what the user does with the pool.
                self._tell(member, str(error))
                continue
            self._tell(member, None)
            metrics.REPUBLISHED.labels(queue=metrics.queue_label(task.spec.queue)).inc()
            tasks.append(task)
        if tasks:
            log.warning("jobs_missing", count=len(tasks), uid=tasks[0].uid)
            await self._again(tasks)

    async def _judge(self, states: Mapping[Job, State]) -> None:
        now = self._now()
        asked = [
            each
            for each, state in states.items()
            if state.waiting and (each.ended or (now - each.created).total_seconds() > LOOK_SECONDS)
        ]
        pods = await self._pods() if asked else {}
        for each, state in states.items():
            if state.waiting:
                self._tell(each.member, trouble(each, pods.get(each.uid), now) if each in asked else None)
            if state.waiting or state.leased:
                self._over.pop(each.uid, None)
                if state.waiting and each.ended and (now - each.ended).total_seconds() > AGAIN_SECONDS:
                    await self._delete(each, "it ended without having taken its attempt")
            elif each.ended is None:
                since = self._over.setdefault(each.uid, self._clock())
                if self._clock() - since > self._patience:
                    await self._delete(each, "nobody holds its attempt")

    async def _pods(self) -> dict[str, Mapping[str, Any]]:
        """The latest pod of each Job, by the Job's uid."""
        found = await self._kube.request("GET", resource_path("api/v1", "pods"), params={"labelSelector": SELECTOR})
        latest: dict[str, Mapping[str, Any]] = {}
        for body in sorted(found["items"], key=lambda each: str(each["metadata"]["creationTimestamp"])):
            for owner in body["metadata"].get("ownerReferences") or ():
                latest[owner["uid"]] = body
        return latest

    async def _delete(self, found: Job, why: str) -> None:
        if found.leaving:
            return
        path = resource_path(BATCH, "jobs", found.namespace, found.name)
        options = delete_options(uid=found.uid) | {"propagationPolicy": "Background"}
        try:
            await self._kube.request("DELETE", path, options)
        except (NotFound, Conflict):
            return
        log.info("job_deleted", job=f"{found.namespace}/{found.name}", uid=found.task_uid, why=why)

    def _tell(self, member: Member, words: str | None) -> None:
        if self._troubles.get(member) == words:
            return
        if words is None:
            del self._troubles[member]
        else:
            self._troubles[member] = words
        self._show(member[0])

    def _forget(self, waiting: Mapping[Member, Task], jobs: Sequence[Job]) -> None:
        uids = {each.uid for each in jobs}
        self._over = {uid: since for uid, since in self._over.items() if uid in uids}
        kept = {*waiting, *self._waiting()}
        self._refused = {member: when for member, when in self._refused.items() if member in kept}
        self._troubles = {member: words for member, words in self._troubles.items() if member in kept}
