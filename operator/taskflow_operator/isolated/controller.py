"""Compares the Jobs of Tasks that run in pods of their own with the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from taskflow_core.domain.attempts import AttemptKey, State
from taskflow_core.domain.phases import Phase
from taskflow_core.domain.task import Task
from taskflow_core.errors import Conflict, NotFound, TaskflowError
from taskflow_core.kube.client import KubeClient, delete_options, resource_path
from taskflow_core.kube.events import EVENTS
from taskflow_core.telemetry import metrics
from taskflow_core.telemetry.logs import get_logger
from taskflow_operator.isolated.jobs import BATCH, RETRY_SECONDS, SELECTOR, Job, late, problem, refusal
from taskflow_operator.isolated.launcher import JobLauncher
from taskflow_operator.runtime import dependency_health
from taskflow_operator.runtime.supervisor import ConsecutiveErrors
from taskflow_operator.tasks.open_tasks import OpenTasks
from taskflow_operator.tasks.ports import Ledger

log = get_logger(__name__)
LOOK_SECONDS = 2.0
ASK_SECONDS = 15.0
"""The time between two looks at the Events of a Job without a pod."""
MOST_EVENTS = 20
SLACK_SECONDS = 10.0
"""An attempt that nobody has held for a lease and this long loses its Job."""


class JobController:
    """Launches attempts whose Job is missing, and deletes Jobs that are of no use.

    An attempt that waits in the ledger without a Job is one whose launch failed, or whose Job somebody deleted.

    Args:
        tasks: the open Tasks.
        kube: the API server.
        ledger: the state of the attempts.
        launcher: creates Jobs.
        republish: enters attempts again and launches them.
        lease_seconds: how long a silent worker keeps its attempt.
        now: the time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        tasks: OpenTasks,
        kube: KubeClient,
        ledger: Ledger,
        launcher: JobLauncher,
        republish: Callable[[Sequence[Task]], Awaitable[None]],
        *,
        lease_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._kube = kube
        self._ledger = ledger
        self._launcher = launcher
        self._republish = republish
        self._patience = lease_seconds + SLACK_SECONDS
        self._now = now
        self._clock = clock
        self._unheld: dict[str, float] = {}
        """Running Jobs whose attempt nobody holds, by uid, and since when."""
        self._refusals: dict[str, tuple[float, str]] = {}
        """Why Jobs have no pod, by uid, and when that was asked."""
        self._any_jobs = True
        self._errors = ConsecutiveErrors("jobs")

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            self._errors.check()
            try:
                with metrics.RECONCILE.labels(kind="jobs").time():
                    await self.look()
            except TaskflowError as error:
                dependency_health.failed(error)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                self._errors.record(error)
            else:
                self._errors.clear()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Compare the Jobs with the ledger, once.

        Raises:
            Unavailable, Conflict: the API server or Redis does not answer, or the list was interrupted.
        """
        # Before the list: an attempt that is queued after it has a Job that is not in it.
        waiting = self._waiting()
        if not waiting and not self._any_jobs and not self._tasks.isolated():
            return
        jobs = await self._jobs()
        self._any_jobs = bool(jobs)
        states = dict(zip(jobs, await self._ledger.states([each.key for each in jobs]), strict=True))
        existing = {each.key for each in jobs}
        await self._launch_missing([task for attempt, task in waiting.items() if attempt not in existing])
        await self._check(states)
        uids = {each.uid for each in jobs}
        self._unheld = {uid: since for uid, since in self._unheld.items() if uid in uids}
        self._refusals = {uid: known for uid, known in self._refusals.items() if uid in uids}
        self._launcher.forget_except({*waiting, *self._waiting()})

    def _waiting(self) -> dict[AttemptKey, Task]:
        return {
            AttemptKey.current(known.task): known.task
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

    async def _launch_missing(self, missing: Sequence[Task]) -> None:
        tasks = [task for task in missing if self._launcher.ready(task)]
        if not tasks:
            return
        for task in tasks:
            metrics.REPUBLISHED.labels(queue=metrics.queue_label(task.spec.queue)).inc()
        log.warning("jobs_missing", count=len(tasks), uid=tasks[0].uid)
        await self._republish(tasks)

    async def _check(self, states: Mapping[Job, State]) -> None:
        now = self._now()
        slow = [
            each
            for each, state in states.items()
            if state.waiting and (each.ended or (now - each.created).total_seconds() > LOOK_SECONDS)
        ]
        pods = await self._pods() if slow else {}
        for each, state in states.items():
            if state.waiting:
                pod = pods.get(each.uid)
                refused = await self._refusal(each) if each in slow and pod is None and late(each, now) else ""
                self._launcher.report(each.key, problem(each, pod, now, refused) if each in slow else None)
            if state.waiting or state.leased:
                self._unheld.pop(each.uid, None)
                if state.waiting and each.ended and (now - each.ended).total_seconds() > RETRY_SECONDS:
                    await self._delete(each, "it ended without taking its attempt")
            elif each.ended is None:
                since = self._unheld.setdefault(each.uid, self._clock())
                if self._clock() - since > self._patience:
                    await self._delete(each, "nobody holds its attempt")

    async def _refusal(self, job: Job) -> str:
        """Why a Job has no pod, by its Events, which are asked for from time to time."""
        asked, known = self._refusals.get(job.uid, (float("-inf"), ""))
        if self._clock() - asked < ASK_SECONDS:
            return known
        selector = f"regarding.uid={job.uid},reason=FailedCreate"
        path = resource_path(EVENTS, "events", job.namespace)
        try:
            found = await self._kube.request("GET", path, params={"fieldSelector": selector, "limit": str(MOST_EVENTS)})
        except TaskflowError as error:
            # Only a message depends on it.
            dependency_health.failed(error)
        else:
            known = refusal(found["items"]) or known
        self._refusals[job.uid] = self._clock(), known
        return known

    async def _pods(self) -> dict[str, Mapping[str, Any]]:
        """The latest pod of each Job, by the Job's uid."""
        found = await self._kube.request("GET", resource_path("api/v1", "pods"), params={"labelSelector": SELECTOR})
        latest: dict[str, Mapping[str, Any]] = {}
        for body in sorted(found["items"], key=lambda each: str(each["metadata"]["creationTimestamp"])):
            for owner in body["metadata"].get("ownerReferences") or ():
                latest[owner["uid"]] = body
        return latest

    async def _delete(self, found: Job, why: str) -> None:
        if found.terminating:
            return
        path = resource_path(BATCH, "jobs", found.namespace, found.name)
        options = delete_options(uid=found.uid) | {"propagationPolicy": "Background"}
        try:
            await self._kube.request("DELETE", path, options)
        except (NotFound, Conflict):
            return
        log.info("job_deleted", job=f"{found.namespace}/{found.name}", uid=found.task_uid, why=why)
